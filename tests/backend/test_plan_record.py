"""Plans as files: followed to the letter, the same bits again, and what cannot be is refused in one line."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_models import model, node, run_onnxruntime
from plan_runner import ISA, MACHINE, plan_graph, run_plan
from small_nets import Net, oracle, random_inputs, resnet50

from backend import BackendError, InferenceSession, Machine, PlanError, Roofs, plan_model, read_record
from backend.graph.ir import Graph
from backend.plan.choices import DepthwiseChoice, GemmChoice, PanelRun, WinogradChoice
from backend.plan.plan import Plan
from backend.plan.planner import choose_record, make_plan
from backend.plan.record import PlanRecord

BATCH = 4
LANES = ISA.lanes
NARROW = next(tile for tile in ISA.tiles if tile.nr == 1)


def network() -> onnx.ModelProto:
    """3x3, strided 3x3 and depthwise convolutions, a residual, a dense layer; two nodes have the same name.

    The wide depthwise layer has more vectors of channels than a small L1 lets go together.
    """
    rng = np.random.default_rng(0)

    def weights(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    c = 2 * LANES
    nodes = [
        node("Conv", "x w0", "c0", name="stem", pads=[1, 1, 1, 1]),
        node("Conv", "c0 w1", "c1", name="body", pads=[1, 1, 1, 1]),
        node("Add", "c1 c0", "a1", name="add"),
        node("Relu", "a1", "r1", name="relu"),
        node("Conv", "r1 wd", "d", name="dw", pads=[1, 1, 1, 1], group=c),
        node("Conv", "d w2", "c2", name="twin", strides=[2, 2]),
        node("Conv", "c2 w3", "c3", name="twin"),
        node("Conv", "c3 we", "e", name="wide", pads=[1, 1, 1, 1], group=5 * c),
        node("Conv", "e wf", "f0", name="5x5", pads=[2, 2, 2, 2], group=5 * c),
        node("GlobalAveragePool", "f0", "g", name="pool"),
        node("Flatten", "g", "f", name="flat", axis=1),
        node("Gemm", "f w4", "y", name="head"),
    ]
    constants = {
        "w0": weights(c, 3, 3, 3), "w1": weights(c, c, 3, 3), "wd": weights(c, 1, 3, 3), "w2": weights(c, c, 3, 3),
        "w3": weights(5 * c, c, 1, 1), "we": weights(5 * c, 1, 3, 3), "wf": weights(5 * c, 1, 5, 5),
        "w4": weights(5 * c, 19),
    }  # fmt: skip
    return model(nodes, {"x": ["N", 3, 12, 12]}, ["y"], constants)


PROTO = network()
IMAGES = np.random.default_rng(1).standard_normal((BATCH, 3, 12, 12)).astype(np.float32)


def session(**settings: Any) -> InferenceSession:
    return InferenceSession(PROTO, **{"max_batch": BATCH, "threads": 1, "isa": ISA.name} | settings)


def plan(**settings: Any) -> Any:
    return plan_model(PROTO, **{"max_batch": BATCH, "isa": ISA.name} | settings)


def logits(opened: InferenceSession) -> np.ndarray:
    return opened.run(None, {"x": IMAGES})[0]


def theirs() -> np.ndarray:
    """onnxruntime's logits; it does not take nodes of the same name."""
    proto = network()
    for one in proto.graph.node:
        one.name = ""
    return run_onnxruntime(proto, {"x": IMAGES})[0]


def test_a_saved_plan_gives_the_same_plan_and_bits(tmp_path: Path) -> None:
    """Written, read, followed, on machines with other caches, where the planner by itself would decide otherwise."""
    path = tmp_path / "plan.json"
    large = replace(MACHINE, cpu="another", l1d_bytes=48 << 10, l2_bytes=1 << 20, l3_bytes=32 << 20)
    tiny = replace(MACHINE, cpu="a third", l1d_bytes=1 << 10, l2_bytes=4 << 10, l3_bytes=8 << 10)
    small_l1 = replace(large, l1d_bytes=1 << 10)
    first = session(isa=None, machine=large)
    first.plan().record.write(path)
    assert read_record(path) == first.plan().record
    for other in (tiny, small_l1):
        assert session(isa=None, machine=other).plan().steps.tobytes() != first.plan().steps.tobytes()
    for again in (
        session(plan=path),
        session(plan=str(path), isa=None, machine=tiny),
        session(plan=read_record(path), isa=None, machine=small_l1),
    ):
        assert again.plan().steps.tobytes() == first.plan().steps.tobytes()
        assert again.plan().tables.tobytes() == first.plan().tables.tobytes()
        assert again.plan().weights.tobytes() == first.plan().weights.tobytes()
        assert (again.plan().arena_size, again.plan().scratch_size) == (
            first.plan().arena_size, first.plan().scratch_size,
        )  # fmt: skip
        assert again.plan().record == first.plan().record
        assert again.plan().record.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert "the plan was made for: another, L1d 48 KiB, L2 1024 KiB, L3 32768 KiB" in str(again.plan())
        assert logits(again).tobytes() == logits(first).tobytes()
    assert "made for" not in str(first.plan())
    expected = theirs()
    assert np.abs(logits(first) - expected).max() <= 1e-5 * np.abs(expected).max()


def test_a_depthwise_layer_s_blocks_are_among_the_choices() -> None:
    """Which blocks the depthwise layer runs in depends on L1, so a plan file has to say it."""
    large, small = (replace(MACHINE, l1d_bytes=l1d_bytes, l2_bytes=1 << 20) for l1d_bytes in (48 << 10, 1 << 10))
    chosen = [plan(isa=None, machine=machine).record.nodes["wide"] for machine in (large, small)]
    assert all(isinstance(choice, DepthwiseChoice) for choice in chosen)
    assert chosen[0].nc_panels == 10 > chosen[1].nc_panels


def test_a_plan_names_every_choice_and_what_it_is_for() -> None:
    record = json.loads(plan().record.as_json())
    assert (record["schema"], record["isa"], record["precision"]) == ("loadgen-numba plan 3", ISA.name, "fp32")
    assert record["max_batch"] == BATCH
    assert record["machine"]["l2_bytes"] == MACHINE.l2_bytes
    assert set(record["nodes"]) == {"stem", "body", "dw", "twin -> c2", "twin -> c3", "wide", "head"}
    weights_only = network()
    weights_only.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.ones((2 * LANES, 3, 3, 3), "f4"), "w0"))
    assert plan_model(weights_only, max_batch=BATCH, isa=ISA.name).record == plan().record


def edited(change: Callable[[dict[str, Any]], None], tmp_path: Path) -> Path:
    content = json.loads(plan().record.as_json())
    change(content)
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(content))
    return path


def test_what_the_file_says_is_what_runs(tmp_path: Path) -> None:
    """Another tile, MC, NC, KC, loop order, algorithm, group and cut: seen in the rows, and right by onnxruntime."""
    body = {"tile": str(NARROW), "panels": 2, "mc": 2 * NARROW.mr, "nc_panels": 1, "kc_taps": 1, "kc_depth": 5,
            "panels_outside": True}  # fmt: skip

    def change(content: dict[str, Any]) -> None:
        content["nodes"]["body"] = {"kernel": "conv_gemm", "group_images": 3, "runs": [body]}
        content["nodes"]["stem"]["group_images"] = 3
        content["segments"] = [{"last_node": "body", "chunk": 3}, {"last_node": "head", "chunk": BATCH}]

    opened = session(plan=edited(change, tmp_path))
    row = next(row for row in opened.plan().rows() if row.info.node == "body")
    assert (row.kernel, row.tile, row.group_images, row.chunk) == ("conv_gemm", str(NARROW), 3, 3)
    assert {name: getattr(row, name) for name in ("mc", "nc_panels", "kc_taps", "kc_depth", "panels_outside")} == {
        name: body[name] for name in ("mc", "nc_panels", "kc_taps", "kc_depth", "panels_outside")
    }
    step = opened.plan().steps[opened.plan().info_of_step.index(opened.plan().rows().index(row))]
    assert (step["mc"], step["nc_panels"], step["kc_taps"], step["kc_depth"]) == (2 * NARROW.mr, 1, 1, 5)
    expected = theirs()
    assert np.abs(logits(opened) - expected).max() <= 1e-5 * np.abs(expected).max()

    def to_winograd(content: dict[str, Any]) -> None:
        content["nodes"]["body"] = {"kernel": "conv_winograd", "tile": str(NARROW), "mc": 7, "nc_panels": 1}

    opened = session(plan=edited(to_winograd, tmp_path))
    row = next(row for row in opened.plan().rows() if row.info.node == "body")
    assert (row.kernel, row.tile, row.mc) == ("conv_winograd", str(NARROW), 7)
    assert np.abs(logits(opened) - expected).max() <= 1e-4 * np.abs(expected).max()

    opened = session(plan=edited(depthwise("wide", tile="3x1", nc_panels=7, rows=4), tmp_path))
    row = next(row for row in opened.plan().rows() if row.info.node == "wide")
    step = opened.plan().steps[opened.plan().info_of_step.index(opened.plan().rows().index(row))]
    assert (row.kernel, row.tile, row.nc_panels, step["rows"]) == ("depthwise_3x3", "3x1", 7, 4)
    assert logits(opened).tobytes() == logits(session()).tobytes()


def gemm(**fields: Any) -> Callable[[dict[str, Any]], None]:
    """The body by conv_gemm with valid values, some of them replaced."""
    run = {"tile": str(NARROW), "panels": 2, "mc": NARROW.mr, "nc_panels": 1, "kc_taps": 3, "kc_depth": 6 * LANES,
           "panels_outside": True}  # fmt: skip
    choice = {"kernel": "conv_gemm", "group_images": 1, "runs": [run | {k: v for k, v in fields.items() if k in run}]}
    choice |= {key: value for key, value in fields.items() if key not in run}
    return lambda content: content["nodes"].update(body=choice)


def winograd(key: str = "body", **fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["nodes"].update(
        {key: {"kernel": "conv_winograd", "tile": str(NARROW), "mc": 1, "nc_panels": 1} | fields}
    )


def depthwise(key: str = "wide", **fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["nodes"].update(
        {key: {"kernel": "depthwise_3x3", "tile": "2x1", "nc_panels": 1, "rows": 1} | fields}
    )


def put(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.update({key: value})


def chained(first_node: str, last_node: str, parts: int = 1, rows: int = 2) -> Callable[[dict[str, Any]], Any]:
    """One chain, and every node in a segment with chunk 1."""

    def change(content: dict[str, Any]) -> None:
        content["segments"] = [{"last_node": "head", "chunk": 1}]
        for choice in content["nodes"].values():
            choice |= {"group_images": 1} if "runs" in choice else {"mc": 1} if "mc" in choice else {}
        content["chains"] = [{"first_node": first_node, "last_node": last_node, "parts": parts, "rows": rows}]

    return change


MR = NARROW.mr
REFUSED: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "mc of no whole tiles": (gemm(mc=MR + 1), rf"'body', runs\[0\].mc={MR + 1}: .* a multiple of MR={MR} from {MR}"),
    "mc of nothing": (gemm(mc=0), r"node 'body', runs\[0\].mc=0: .* a multiple"),
    "mc beyond the pixels": (gemm(mc=MR << 40), r"runs\[0\].mc=\d+: .* a multiple of MR=\d+ from \d+ to \d+$"),
    "negative nc": (gemm(nc_panels=-1), r"runs\[0\].nc_panels=-1: .* 1 to 2"),
    "nc beyond the panels": (gemm(nc_panels=3), r"runs\[0\].nc_panels=3: .* 1 to 2"),
    "kc of nothing": (gemm(kc_taps=0), r"node 'body', runs\[0\].kc_taps=0: .* 1 to 3"),
    "kc beyond the depth": (gemm(kc_depth=6 * LANES + 1), rf"kc_depth={6 * LANES + 1}: .* 1 to {6 * LANES}"),
    "kc cut in both": (gemm(kc_taps=2, kc_depth=1), rf"kc_depth=1: .* {6 * LANES}, or less if kc_taps is 1"),
    "kc cut with pixels outside": (gemm(kc_taps=1, panels_outside=False), r"kc_taps=1: .* 3 unless panels_outside"),
    "no such tile": (gemm(tile="7x7"), rf"node 'body', runs\[0\].tile=7x7: .* one of {ISA.tiles[0]}, .*\({ISA.name}\)"),
    "no tile at all": (gemm(tile="wide"), r"node 'body', runs\[0\].tile=\"wide\": allowed is MRxNR"),
    "too few panels": (gemm(panels=1), r"node 'body', runs=1 vectors: .* add up to 2 vectors"),
    "too many panels": (gemm(panels=3), r"runs\[0\].panels=3: .* 1 to 2"),
    "no runs": (gemm(runs=[]), r"node 'body', runs=0 vectors"),
    "group of nothing": (gemm(group_images=0), r"node 'body', group_images=0: .* 1 to \d"),
    "a group that does not divide": (gemm(group_images=3), r"group_images=3: allowed is a divisor of the 4"),
    "a number as text": (gemm(mc="16"), r"node 'body', runs\[0\].mc=\"16\": allowed is an integer"),
    "a number as truth": (gemm(mc=True), r"mc=true: allowed is an integer"),
    "an order of numbers": (gemm(panels_outside=1), r"panels_outside=1: allowed is true or false"),
    "an unknown kernel": (gemm(kernel="magic"), r"'body', kernel=\"magic\": allowed is conv_gemm, conv_winograd or d"),
    "a field too many": (gemm(nr=2), r"node 'body', nr=2: .* no such field"),
    "winograd of a strided layer": (winograd("twin -> c2"), r"'twin -> c2', kernel=conv_winograd: allowed is conv_g"),
    "winograd of a dense layer": (winograd("head"), r"node 'head', kernel=conv_winograd"),
    "winograd with no tile": (winograd(tile="0x0"), r"node 'body', tile=0x0: .* NR a divisor of 2 vectors, one of"),
    "winograd of no patches": (winograd(mc=0), r"node 'body', mc=0: allowed is 1 to"),
    "an unknown node": (winograd("nobody"), r"node 'nobody'"),
    "a depthwise node of 5x5": (depthwise("5x5"), r"node '5x5', name=5x5: .* \(depthwise: 3x3, not dilated"),
    "winograd of a depthwise layer": (winograd("dw"), r"node 'dw', kernel=conv_winograd: allowed is depthwise_3x3 for"),
    "gemm of a depthwise layer": (
        lambda content: content["nodes"].update(dw=content["nodes"]["stem"]),
        r"node 'dw', kernel=conv_gemm: allowed is depthwise_3x3 for this node",
    ),
    "depthwise of another layer": (depthwise("body"), r"node 'body', kernel=depthwise_3x3: allowed is conv_gemm or"),
    "depthwise of a dense layer": (depthwise("head"), r"node 'head', kernel=depthwise_3x3: allowed is conv_gemm or"),
    "depthwise beyond the row": (depthwise(tile="6x1"), r"'wide', tile=6x1: .* one of 1x1, .*, 5x1 \("),
    "depthwise beyond the registers": (
        depthwise("dw", tile=f"{ISA.depthwise_mr + 1}x1"), rf"'dw', tile=\d+x1: .* {ISA.depthwise_mr}x1 \({ISA.name}",
    ),
    "depthwise of no pixels": (depthwise(tile="0x1"), r"'wide', tile=0x1: allowed is one of 1x1, 2x1"),
    "depthwise by two vectors": (depthwise(tile="2x2"), r"'wide', tile=2x2: allowed is one of 1x1, 2x1"),
    "depthwise of no vectors": (depthwise(nc_panels=0), r"'wide', nc_panels=0: allowed is 1 to 10"),
    "depthwise of too many vectors": (depthwise(nc_panels=11), r"'wide', nc_panels=11: allowed is 1 to 10"),
    "depthwise of no rows": (depthwise(rows=0), r"'wide', rows=0: allowed is 1 to 5"),
    "depthwise of too many rows": (depthwise(rows=6), r"'wide', rows=6: allowed is 1 to 5"),
    "depthwise without rows": (lambda content: content["nodes"]["wide"].pop("rows"), r"node 'wide', rows is missing"),
    "a missing depthwise node": (lambda content: content["nodes"].pop("wide"), r"node 'wide' is missing: every convo"),
    "a missing node": (lambda content: content["nodes"].pop("stem"), r"node 'stem' is missing"),
    "a missing field": (lambda content: content["nodes"]["head"].pop("runs"), r"node 'head', runs is missing"),
    "no nodes": (lambda content: content.pop("nodes"), r"nodes is missing"),
    "another schema": (put("schema", "loadgen-numba plan 2"), r"allowed is 'loadgen-numba plan 3'; write the plan ag"),
    "another isa": (put("isa", "neon"), rf"for isa neon, not {ISA.name}"),
    "another precision": (put("precision", "int8"), r"for precision int8, not fp32"),
    "another batch": (put("max_batch", 2), r"for max_batch 2, not 4: ask for 2"),
    "another model": (lambda c: c["model"].update(network_sha256="0"), r"for model 'test', network 0, not for 'test'"),
    "no segment": (put("segments", []), r"segments is empty: one or more"),
    "an open end": (put("segments", [{"last_node": "stem", "chunk": 1}]), r"last_node='stem': .* last node, 'head'"),
    "segments in disorder": (
        put("segments", [{"last_node": "head", "chunk": 1}, {"last_node": "head", "chunk": 4}]),
        r"segments\[1\], last_node: a node is needed that comes after",
    ),
    "an end nowhere": (put("segments", [{"last_node": "nobody", "chunk": 1}]), r"last_node='nobody': .* no such node"),
    "a chain of one node": (chained("dw", "dw"), r"chains\[0\], first_node='dw', last_node='dw': two nodes or more"),
    "a chain backwards": (chained("twin -> c2", "dw"), r"first_node='twin -> c2', last_node='dw': two nodes or more"),
    "chains that overlap": (
        lambda c: (chained("dw", "twin -> c2")(c), c["chains"].append(c["chains"][0])),
        r"chains\[1\], first_node='dw', .* behind those of the chain before",
    ),
    "a chain from nowhere": (chained("nobody", "dw"), r"chains\[0\], first_node='nobody': .* no such node"),
    "a chain over a residual": (chained("stem", "body"), r"chains\[0\], nodes 'stem' and 'body': in a chain only"),
    "a chain of more images": (
        lambda c: (chained("dw", "twin -> c2")(c), c.update(segments=[{"last_node": "head", "chunk": 2}])),
        r"chains\[0\], nodes 'dw' and 'twin -> c2': .* a segment with chunk 1",
    ),
    "a chain over an edge": (
        lambda c: (
            chained("dw", "twin -> c2")(c),
            c.update(segments=[{"last_node": "dw", "chunk": 1}, {"last_node": "head", "chunk": 1}]),
        ),
        r"chains\[0\], nodes 'dw' and 'twin -> c2'",
    ),
    "a chain to a pool": (chained("5x5", "pool"), r"nodes '5x5' and 'pool'"),
    "a chain in no parts": (chained("dw", "twin -> c2", parts=0), r"chains\[0\], parts=0: 1 to 5"),
    "a chain in too many parts": (chained("dw", "twin -> c2", parts=6), r"chains\[0\], parts=6: 1 to 5"),
    "a chain by no rows": (chained("dw", "twin -> c2", rows=0), r"chains\[0\], rows=0: 1 to 5"),
    "chunk beyond the batch": (put("segments", [{"last_node": "head", "chunk": 5}]), r"chunk=5: 1 to max_batch=4"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    change, expected = REFUSED[name]
    with pytest.raises(PlanError, match=expected) as caught:
        plan(plan=edited(change, tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", "not a JSON file"),
        ('{"schema": "a", "schema": "b"}', "'schema' is there twice"),
        ("[" * 100_000, "not a JSON file"),
        ("[1]", r"\[1\]: an object is needed"),
        ("{}", "schema is missing"),
    ],
)
def test_what_is_no_plan_is_refused(text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(PlanError, match=expected) as caught:
        plan(plan=tmp_path / "plan.json")
    assert "\n" not in str(caught.value) and "plan.json" in str(caught.value)
    with pytest.raises(PlanError, match=r"absent.json: No such file"):
        plan(plan=tmp_path / "absent.json")


def test_no_value_anywhere_breaks_the_reader(tmp_path: Path) -> None:
    """Every leaf replaced by values of every kind: refused by name, or a plan that can be made."""
    whole = json.loads(plan().record.as_json())
    made = 0
    for path in leaves(whole):
        for junk in (None, -1, 0, 10**30, 1.5, "", "x", [], {}, True):
            content = copy.deepcopy(whole)
            parent = content
            for key in path[:-1]:
                parent = parent[key]
            parent[path[-1]] = junk
            file = tmp_path / "junk.json"
            file.write_text(json.dumps(content))
            try:
                plan(plan=file)
                made += 1
            except BackendError as error:
                assert isinstance(error, PlanError) and "\n" not in str(error), f"{path} = {junk!r}"
    assert made > 0  # the machine's description is free, for one


def leaves(content: Any) -> list[tuple[Any, ...]]:
    if isinstance(content, dict):
        return [(key, *rest) for key, value in content.items() for rest in leaves(value)]
    if isinstance(content, list):
        return [(index, *rest) for index, value in enumerate(content) for rest in leaves(value)]
    return [()]


def with_tiny_blocks(record: PlanRecord, mc_tiles: int, panels: int, taps: int, depth: int) -> PlanRecord:
    """Panels outside in the least blocks: `mc_tiles` tiles, so many panels, taps, elements of depth, at most."""
    nodes = {}
    for name, choice in record.nodes.items():
        if isinstance(choice, WinogradChoice):
            nodes[name] = replace(choice, mc=min(choice.mc, mc_tiles))
            continue
        assert isinstance(choice, GemmChoice), "none of the layers here is depthwise"
        runs = []
        for run in choice.runs:
            blocks = replace(
                run.blocks,
                mc=min(run.blocks.mc, mc_tiles * run.tile.mr),
                nc_panels=min(run.panels, panels),
                kc_taps=min(run.blocks.kc_taps, taps),
                kc_depth=min(run.blocks.kc_depth, depth) if taps == 1 else run.blocks.kc_depth,
                panels_outside=True,
            )
            runs.append(PanelRun(run.tile, run.panels, blocks))
        nodes[name] = GemmChoice(choice.group_images, tuple(runs))
    return replace(record, nodes=nodes)


LAYERS: dict[str, tuple[int, tuple[int, int], int, tuple[int, int], dict[str, Any]]] = {
    "1x1": (19, (5, 7), 3 * LANES + 1, (1, 1), {}),
    "1x1-strided": (19, (5, 7), 33, (1, 1), {"strides": (2, 3)}),
    "3x3": (7, (6, 9), 5 * LANES - 1, (3, 3), {"pads": (1, 1, 1, 1)}),
    "3x3-by-patches": (LANES, (8, 12), 2 * LANES, (3, 3), {"pads": (1, 1, 1, 1)}),
    "7x7-stem": (3, (23, 21), 64, (7, 7), {"strides": (2, 2), "pads": (3, 3, 3, 3)}),
    "dilated": (4, (9, 11), 16, (3, 2), {"dilations": (2, 3), "pads": (2, 2, 2, 2)}),
    "groups": (12, (5, 6), 10, (3, 3), {"group": 2, "pads": (1, 1, 1, 1)}),
    "one-pixel": (33, (1, 1), 17, (1, 1), {}),
}


def layer(name: str) -> Graph:
    channels, picture, filters, kernel, fields = LAYERS[name]
    net = Net()
    x = net.conv(net.input(channels, *picture), channels, low=0.0)
    return net.graph(net.conv(x, filters, kernel, **fields))


@pytest.mark.parametrize("name", LAYERS)
def test_tiny_blocks_are_right_to_the_bit(name: str) -> None:
    """The least MC, NC and KC that there are, and ones beside them, in and across groups of images: NumPy's result."""
    graph = layer(name)
    inputs = random_inputs(graph, 3)
    record = choose_record(graph, MACHINE, 3)
    expected = run_plan(make_plan(graph, MACHINE, 3, saved=record), inputs)
    want = oracle(graph, inputs)[0]
    assert np.abs(expected[0] - want).max() <= 2e-5 * np.abs(want).max()
    for blocks in ((1, 1, 1, 1), (1, 2, 1, 3), (2, 1, 2, 0), (3, 2, 1, 5)):
        plan = make_plan(graph, MACHINE, 3, saved=with_tiny_blocks(record, *blocks))
        cut = [row for row in plan.rows() if row.kernel == "conv_gemm"]
        assert all(row.mc <= blocks[0] * max(tile.mr for tile in ISA.tiles) for row in cut)
        assert all(row.nc_panels <= blocks[1] and row.kc_taps <= blocks[2] for row in cut)
        assert run_plan(plan, inputs)[0].tobytes() == expected[0].tobytes(), f"blocks {blocks}"


def test_the_planner_s_own_choices_are_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from backend.plan import choose

    whole = choose.choose_blocks
    monkeypatch.setattr(choose, "choose_blocks", lambda *asked: replace(whole(*asked), mc=1009))
    with pytest.raises(PlanError, match="mc=1009: allowed is a multiple of MR"):
        plan_graph(layer("3x3"))


def test_rows_add_up() -> None:
    """Bytes, operations and the expected time of a convolution, by hand."""
    net = Net()
    graph = net.graph(net.conv(net.input(8, 10, 12), LANES + 3, (3, 3), strides=(2, 2), pads=(1, 1, 1, 1)))
    plan = plan_graph(graph, 2)
    rows = [row for row in plan.rows() if row.info.op == "Conv"]
    assert sum(row.operations for row in rows) == 2 * 2 * 5 * 6 * (LANES + 3) * 72
    assert sum(row.executed_operations for row in rows) == 2 * 2 * 5 * 6 * 2 * LANES * 72
    assert sum(row.weight_bytes for row in rows) == 4 * 72 * 2 * LANES
    assert sum(row.written_bytes for row in rows) == 4 * 2 * 5 * 6 * (LANES + 3)
    assert {row.read_bytes for row in rows} == {4 * 2 * 8 * 10 * 12}
    moved = rows[0].weight_bytes + rows[0].read_bytes + rows[0].written_bytes
    assert rows[0].expected_s(Roofs(1e9, 2.0, 1)) == pytest.approx(moved / 2e9)
    assert rows[0].expected_s(Roofs(3.0, 1e9, 1)) == pytest.approx(rows[0].executed_operations / 3e9)
    assert plan.model_bytes.weights == 4 * (72 + 1) * (LANES + 3)
    assert plan.model_bytes.activations == 4 * 2 * (8 * 10 * 12 + 5 * 6 * (LANES + 3))
    assert plan_graph(graph, 2) != plan  # arrays are not compared, which would raise


def test_the_table_shows_each_step_and_the_memory() -> None:
    made = plan()
    text = str(made)
    lines = text.splitlines()
    header = next(index for index, line in enumerate(lines) if line.startswith("node "))
    for row, line in zip(made.rows(), lines[header + 1 :], strict=False):
        assert line.split()[:3] == [row.info.node, row.info.op, row.kernel]
        assert line.split()[-1] == f"{1e-6 * row.operations:.1f}"
    assert "expected" not in text and "expected us" in made.text(1, Roofs(100.0, 10.0, 1))
    assert f"ratio {made.owned_bytes(1) / made.model_bytes.total:.2f}" in text


TYPICAL: Machine = replace(MACHINE, l1d_bytes=48 << 10, l2_bytes=1 << 20, l3_bytes=32 << 20)


def assert_owns_at_most_twice(made: Plan) -> None:
    """Packed weights, tables, arena and each thread's scratch memory, beside what the model needs."""
    for threads in (1, 2):
        ratio = made.owned_bytes(threads) / made.model_bytes.total
        assert ratio <= 2, f"max_batch {made.max_batch}, {threads} threads: {ratio:.2f}"


@pytest.mark.parametrize("name", ["mobilenet_v2_1.0_224", "tiny_dscnn", "tiny_vww96", "tiny_ad", "tiny_resnet8"])
def test_a_session_owns_at_most_twice_what_the_model_needs(name: str, models_dir: Path) -> None:
    for max_batch in (1, 8, 32):
        assert_owns_at_most_twice(plan_model(models_dir / f"{name}.onnx", max_batch=max_batch, machine=TYPICAL))


def test_of_resnet50_a_session_owns_at_most_twice_what_it_needs() -> None:
    """Half of its weights are 3x3 layers', of which Winograd's are four times as many."""
    graph = resnet50()
    for max_batch in (1, 8, 32):
        made = plan_graph(graph, max_batch, TYPICAL)
        assert "conv_winograd" in {key.name for key in made.kernels}
        assert_owns_at_most_twice(made)
