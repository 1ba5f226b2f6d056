"""Mutation testing: changes of the code, one at a time, and whether a test fails for each.

One process imports everything and collects the tests once. Changed code is put into the function that is there, and the
tests that execute the changed lines run, likely killers first, up to the first failure: milliseconds a mutant.

    python benchmarks/mutation.py models/metrics.py --tests tests/models/test_metrics.py --out mutants.jsonl

Changed are operators, comparisons, numbers, conditions, arguments, calls and statements; not strings (but for those of
`STRINGS`), annotations, error messages, assertions and the defaults of settings.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import signal
import sys
import time
import types
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coverage
import hypothesis
import pytest
from _pytest.runner import runtestprotocol
from _pytest.tmpdir import tmppath_result_key

SWAPS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.MatMult: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}
#: Options in calls whose other value is as valid.
STRINGS = {"macro": "weighted", "weighted": "macro", "none": "mean", "batchmean": "mean", "start": "end"}
#: Seconds of CPU in one test after which a mutant counts as killed: it runs forever.
TIMEOUT = 20
#: Tests that take more seconds of CPU are left out.
SLOWEST = 2.0
#: Calls of their attributes are calls of functions, not of methods of a value.
OWNERS = {"self", "torch", "nn", "functional", "np", "losses"}
#: Never changed.
KEPT_FIELDS = ("annotation", "returns", "decorator_list")
KEPT_NODES = (ast.Raise, ast.Assert, ast.Import, ast.ImportFrom)


@dataclass
class Mutant:
    """A change of one statement: another node, or none, where one was.

    Attributes:
        statement: that is changed.
        scope: names of the classes and the function around it; () for a constant of the module.
        parent, field, index: where the node is.
        new: what stands there instead.
    """

    statement: ast.stmt
    scope: tuple[str, ...]
    parent: ast.AST
    field: str
    index: int | None
    new: ast.AST | None

    def __enter__(self) -> Mutant:
        self.old = getattr(self.parent, self.field)
        changed: Any = self.new
        if self.index is not None:
            changed = list(self.old)
            changed[self.index : self.index + 1] = [] if self.new is None else [self.new]
        setattr(self.parent, self.field, changed)
        return self

    def __exit__(self, *_: object) -> None:
        setattr(self.parent, self.field, self.old)

    def text(self) -> str:
        """The statement as it is now; of a compound one the first line."""
        source = ast.unparse(ast.fix_missing_locations(self.statement))
        compound = isinstance(self.statement, ast.If | ast.For | ast.While | ast.With | ast.FunctionDef)
        return source.split(":\n")[0] if compound else source


def numbers(value: Any) -> Iterator[Any]:
    """Other constants for a constant."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield value + 1
        if value > 0:
            yield value - 1
    elif isinstance(value, float):
        yield value * 2 if abs(value) >= 1e-3 else value + 1
    elif isinstance(value, str) and value in STRINGS:
        yield STRINGS[value]


def is_value(node: ast.expr) -> bool:
    """Whether it is neither a module nor self nor part of self."""
    return not isinstance(node, ast.Attribute) and not (isinstance(node, ast.Name) and node.id in OWNERS)


def is_type(node: ast.AST) -> bool:
    """Whether it is one of the types that a module names."""
    return isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "Literal"


def droppable(node: ast.AST, field: str) -> bool:
    """Whether an argument may be left out; without its only one most functions cannot be called at all."""
    if not isinstance(node, ast.Call) or field not in ("args", "keywords") or "super" in ast.unparse(node):
        return False
    method = isinstance(node.func, ast.Attribute) and is_value(node.func.value)
    return field == "keywords" or method or len(node.args) > 1


def replacements(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes that may stand in the place of one."""
    if isinstance(node, ast.Constant):
        yield from (ast.Constant(other) for other in numbers(node.value))
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, tuple(SWAPS)):
        yield from (other() for other in SWAPS[type(node)])
    elif isinstance(node, ast.Call) and "super" not in ast.unparse(node):
        if isinstance(node.func, ast.Attribute) and is_value(node.func.value):
            yield node.func.value
        if node.args and not isinstance(node.args[0], ast.Starred | ast.GeneratorExp):
            yield node.args[0]
    elif isinstance(node, ast.Slice):
        yield ast.Slice(None, node.upper, node.step)
        yield ast.Slice(node.lower, None, node.step)
    elif (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)) or isinstance(node, ast.AugAssign):
        yield ast.Pass()
    elif isinstance(node, ast.Continue):
        yield ast.Break()


def mutants(node: ast.AST, scope: tuple[str, ...] = (), statement: ast.stmt | None = None) -> Iterator[Mutant]:
    """All changes below a node."""
    for field, value in ast.iter_fields(node):
        if field in KEPT_FIELDS:
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            setting = isinstance(node, ast.ClassDef) and isinstance(child, ast.Assign | ast.AnnAssign)
            if not isinstance(child, ast.AST) or isinstance(child, KEPT_NODES) or setting or is_type(child):
                continue
            named = isinstance(child, ast.ClassDef | ast.FunctionDef)
            here = (*scope, child.name) if isinstance(child, ast.ClassDef | ast.FunctionDef) else scope
            inner = child if isinstance(child, ast.stmt) else statement
            if inner is not None and not named:
                others: list[ast.AST | None] = list(replacements(child))
                if droppable(node, field):
                    others.append(None)
                if field in ("test", "ifs"):
                    others += [ast.Constant(True), ast.Constant(False)]
                yield from (Mutant(inner, scope, node, field, index, new) for new in others)
            yield from mutants(child, here, inner)


def find_code(code: types.CodeType, path: str) -> types.CodeType:
    """The code of a function by its qualified name."""
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            if constant.co_qualname == path:
                return constant
            if path.startswith(constant.co_qualname + "."):
                return find_code(constant, path)
    raise LookupError(path)


def function_of(module: types.ModuleType, scope: tuple[str, ...]) -> types.FunctionType:
    """A function or method by its name."""
    found: Any = module
    for name in scope:
        found = vars(found)[name]
    found = found.fget if isinstance(found, property) else getattr(found, "__func__", found)
    assert isinstance(found, types.FunctionType)
    return found


def value_of(expression: ast.expr, module: types.ModuleType) -> Any:
    """A default's value."""
    return eval(compile(ast.Expression(expression), str(module.__file__), "eval"), vars(module))


def install(module: types.ModuleType, tree: ast.Module, scope: tuple[str, ...], statement: ast.stmt) -> None:
    """Put the tree's function, or constant, into the modules that are loaded."""
    if scope:
        function = function_of(module, scope)
        definitions = [one for one in tree.body if getattr(one, "name", scope[0]) == scope[0]]
        future = [one for one in definitions if isinstance(one, ast.ImportFrom) and one.module == "__future__"]
        definition = [one for one in definitions if getattr(one, "name", "") == scope[0]]
        code = compile(ast.Module([*future, *definition], []), str(module.__file__), "exec")
        function.__code__ = find_code(code, ".".join(scope))
        if isinstance(statement, ast.FunctionDef):
            given, named = statement.args, zip(statement.args.kwonlyargs, statement.args.kw_defaults, strict=True)
            function.__defaults__ = tuple(value_of(one, module) for one in given.defaults)
            function.__kwdefaults__ = {one.arg: value_of(value, module) for one, value in named if value is not None}
        return
    before = dict(vars(module))
    exec(compile(ast.Module([statement], []), str(module.__file__), "exec"), vars(module))
    loaded = [one for name, one in sys.modules.items() if name.startswith(("emopipe", "tests"))]
    for name, old in before.items():
        for other in loaded if vars(module)[name] is not old else []:
            if vars(other).get(name, other) is old:
                setattr(other, name, vars(module)[name])


def fails(item: pytest.Item, following: pytest.Item) -> bool:
    """Run a test, without a report."""
    item._initrequest()  # type: ignore[attr-defined]
    item.stash[tmppath_result_key] = {}
    try:
        item.session._setupstate.setup(item)
        item.runtest()
    except pytest.skip.Exception:
        return False
    except (Exception, pytest.fail.Exception):
        return True
    finally:
        item.session._setupstate.teardown_exact(following)
    return False


def give_up(*_: object) -> None:
    """End a mutant that runs forever."""
    raise TimeoutError


class Mutation:
    """The pytest plugin that runs the tests once, and then for every mutant."""

    def __init__(self, files: list[str], out: Path, dead: dict[tuple[str, str, str], str]) -> None:
        self.files, self.out, self.dead = files, out, dead
        self.failed = False
        self.seconds: dict[str, float] = {}
        self.kills = Counter[str]()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember whether all is well without a mutant."""
        self.failed = self.failed or report.failed

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run all."""
        tests = session.items
        cover = coverage.Coverage(None, config_file=False, include=[str(Path(file).resolve()) for file in self.files])
        cover.start()
        # The last test is followed by the first, so that fixtures of the session stay for the mutants.
        for item, following in zip(tests, [*tests[1:], tests[0]], strict=True):
            cover.switch_context(item.nodeid)
            begin = time.process_time()
            runtestprotocol(item, nextitem=following, log=True)
            self.seconds[item.nodeid] = time.process_time() - begin
        cover.stop()
        assert not self.failed, "a test fails without a mutant"
        quick = [item for item in tests if self.seconds[item.nodeid] <= SLOWEST]
        total = sum(self.seconds[item.nodeid] for item in quick)
        print(f"\n{len(quick)} of {len(tests)} tests, {total:.1f} s", flush=True)
        signal.signal(signal.SIGPROF, give_up)
        with self.out.open("w") as out:
            for file in self.files:
                self._mutate(file, cover.get_data().contexts_by_lineno(str(Path(file).resolve())), quick, out)
        return True

    def _mutate(self, file: str, lines: dict[int, list[str]], items: list[pytest.Item], out: Any) -> None:
        module = importlib.import_module("emopipe." + ".".join(Path(file).with_suffix("").parts))
        tree, counts, begin = ast.parse(Path(file).read_text()), Counter[str](), time.process_time()
        seen = set()
        for mutant in list(mutants(tree)):
            statement = mutant.statement
            before = mutant.text()
            span = range(statement.lineno, (statement.end_lineno or statement.lineno) + 1)
            names = {name for line in span for name in lines.get(line, [])}
            chosen = [item for item in items if item.nodeid in names or not mutant.scope]
            with mutant:
                after = mutant.text()
                key = (file, ".".join(mutant.scope), after)
                if after == before or (*key, statement.lineno) in seen:
                    continue
                seen.add((*key, statement.lineno))
                killed = self.dead.get(key) or self._kills(module, tree, mutant, chosen)
            install(module, tree, mutant.scope, statement)
            counts["killed" if killed else "survived"] += 1
            row = {"file": file, "line": statement.lineno, "scope": key[1], "before": before, "after": after}
            out.write(json.dumps({**row, "tests": len(chosen), "killed": killed}) + "\n")
            out.flush()
        print(f"{file}: {dict(counts)}, {time.process_time() - begin:.0f} s", flush=True)

    def _kills(self, module: types.ModuleType, tree: ast.Module, mutant: Mutant, items: list[pytest.Item]) -> str:
        """The test that fails, or ""."""
        ast.fix_missing_locations(tree)
        try:
            install(module, tree, mutant.scope, mutant.statement)
        except Exception as error:
            return repr(error)
        items = sorted(
            items, key=lambda item: (self.kills[item.nodeid] + 0.1) / self.seconds[item.nodeid], reverse=True
        )
        for item, following in zip(items, [*items[1:], *items[:1]], strict=True):
            signal.setitimer(signal.ITIMER_PROF, TIMEOUT)
            try:
                if fails(item, following):
                    self.kills[item.nodeid] += 1
                    return item.nodeid
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
        return ""


def main() -> None:
    """Read the arguments and run pytest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="modules, by path")
    parser.add_argument("--tests", nargs="+", required=True, help="files or names of tests")
    parser.add_argument("-k", default="", help="which of them, as in pytest")
    parser.add_argument("--out", type=Path, required=True, help="a JSON line for every mutant")
    parser.add_argument("--again", type=Path, help="an earlier --out: what died there is not tried again")
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in arguments.again.read_text().splitlines()] if arguments.again else []
    dead = {(row["file"], row["scope"], row["after"]): row["killed"] for row in rows}
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]  # a failure need not be made small
    hypothesis.settings.register_profile("mutants", deadline=None, database=None, derandomize=True, phases=phases)
    options = [
        "-q",
        "-n0",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:cov",
        "-m",
        "not slow",
        "-k",
        arguments.k,
        "--hypothesis-profile=mutants",
    ]
    sys.exit(pytest.main([*options, *arguments.tests], plugins=[Mutation(arguments.files, arguments.out, dead)]))


if __name__ == "__main__":
    main()
