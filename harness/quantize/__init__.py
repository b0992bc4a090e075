"""`loadgen-numba quantize` and `get-calibration-list`: post-training quantisation to a QDQ model for any runtime.

onnxruntime's quantizer does the work; here are the choice of images, the report, and care for files. `config.py` holds
what was asked for, `images.py` what is calibrated on, `run.py` the order of things, `measure.py` what is said about the
result, `report.py` how. Knows nothing of LoadGen.
"""
