"""What loops do with an element, written in LLVM's language.

No operation is reordered, contracted or approximated: each rounds as IEEE 754 says, so that the bits do not
depend on the processor.
"""

from collections.abc import Sequence
from typing import TypeAlias

Step: TypeAlias = tuple[str, str, tuple[int, ...]]
"""One operation of a loop's body; tuples are what thousands of blocks build fastest.

First numpy's name of a function, a dtype of safetensors that is decoded, or load, constant, astype, view.
Then the kind of its result, in numpy's code: f4, f8, i4 or b1. Then the places of earlier steps in the body;
of what is read, the number of the array or constant.
"""


BodyLines: TypeAlias = tuple[str, str]
"""Lines before a loop, and those of its body."""

REGISTER = {"f4": "float", "f8": "double", "i4": "i32", "b1": "i1"}
MEMORY = {"f4": "float", "f8": "double", "i4": "i32", "b1": "i8",
          "BF16": "i16", "F16": "half", "F32": "float", "F64": "double"}  # fmt: skip
"""An element of an array, by numpy's code or safetensors' name."""

FLOATS = {
    "add": "fadd", "subtract": "fsub", "multiply": "fmul", "divide": "fdiv",
    "greater": "fcmp ogt", "greater_equal": "fcmp oge", "less": "fcmp olt", "less_equal": "fcmp ole",
    "equal": "fcmp oeq", "not_equal": "fcmp une",
}  # fmt: skip
# a shift is by less than 32: more is undefined
INTEGERS = {"bitwise_and": "and", "right_shift": "ashr", "greater": "icmp sgt", "equal": "icmp eq"}
MASKS = {"bitwise_and": "and", "bitwise_or": "or", "bitwise_xor": "xor"}
BINARY = {"f4": FLOATS, "f8": FLOATS, "i4": INTEGERS, "b1": MASKS}
"""LLVM's instruction, by the kind of the operands and numpy's name."""
UNARY = {
    ("absolute", "f4"): "call float @llvm.fabs.f32(float {})",
    ("absolute", "f8"): "call double @llvm.fabs.f64(double {})",
    ("negative", "f4"): "fneg float {}",
    ("negative", "f8"): "fneg double {}",
}
CONVERSIONS = {
    ("f4", "f8"): "fpext float {} to double",
    ("f8", "f4"): "fptrunc double {} to float",
    ("b1", "f4"): "uitofp i1 {} to float",
    ("b1", "f8"): "uitofp i1 {} to double",
    ("f8", "i4"): "fptosi double {} to i32",
}
VIEW = {("f4", "i4"): "bitcast float {} to i32"}
DECODED = {"F16": "f4", "BF16": "f4", "F32": "f4", "F64": "f8"}
"""What holds the stored numbers of a dtype exactly."""


def computes(function: str, operands: Sequence[str]) -> bool:
    """Tell whether a loop can compute a function of numpy of operands of these kinds."""
    if len(operands) == 1:
        return (function, operands[0]) in UNARY
    return len(set(operands)) == 1 and function in BINARY.get(operands[0], {})


def converts(source: str, target: str) -> bool:
    """Tell whether a loop can convert one kind to another."""
    return source == target or (source, target) in CONVERSIONS


def rounds(kind: str, dtype: str) -> bool:
    """Tell whether a loop can round a kind to a dtype of safetensors, once."""
    return kind == DECODED[dtype] or (kind, dtype) in {("f8", "F32"), ("f4", "F64")}


def expression_body(steps: tuple[Step, ...], results: tuple[int, ...], target: str) -> BodyLines:
    """Write a number for each element, as a kind of numpy's or a dtype of safetensors."""
    before, body, found = _body(steps, results)
    _write(body, target, *found[0])
    return before.text, body.text


def adding_body(steps: tuple[Step, ...], results: tuple[int, ...], apart: int) -> BodyLines:
    """Add each result to its lanes, which begin so many numbers apart."""
    before, body, found = _body(steps, results)
    for number, (value, kind) in enumerate(found):
        lane = body.add(f"add nuw nsw i64 %lane, {number * apart}")
        place = body.add(f"getelementptr double, ptr %out, i64 {lane}")
        so_far = body.add(f"load double, ptr {place}")
        more = body.add(f"fadd double {so_far}, {_converted(body, value, kind, 'f8')}")
        body.lines.append(f"  store double {more}, ptr {place}")
    return before.text, body.text


def counting_body(steps: tuple[Step, ...], results: tuple[int, ...]) -> BodyLines:
    """Note integers that are to be counted: the result, or −1 where a second one, a mask, does not hold."""
    before, body, found = _body(steps, results)
    (integer, _), *masks = found
    for mask, _ in masks:
        integer = body.add(f"select i1 {mask}, i32 {integer}, i32 -1")
    place = body.add("getelementptr i32, ptr %noted, i64 %place")
    body.lines.append(f"  store i32 {integer}, ptr {place}")
    return before.text, body.text


def _body(steps: Sequence[Step], results: Sequence[int]) -> tuple["_Lines", "_Lines", list[tuple[str, str]]]:
    """Return what comes before a loop, its body, and the registers and kinds of its results."""
    before, body = _Lines("c"), _Lines("v")
    registers: list[str] = []
    for step in steps:
        registers.append(_step(step, steps, registers, before, body))
    return before, body, [(registers[place], steps[place][1]) for place in results]


class _Lines:
    """Lines of LLVM's language; each result gets a name."""

    def __init__(self, prefix: str) -> None:
        self.lines: list[str] = []
        self._prefix = prefix

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def add(self, instruction: str) -> str:
        name = f"%{self._prefix}{len(self.lines)}"
        self.lines.append(f"  {name} = {instruction}")
        return name

    def chain(self, register: str, *instructions: str) -> str:
        for instruction in instructions:
            register = self.add(instruction.format(register))
        return register

    def read(self, pointer: str, kind: str, index: str) -> str:
        place = self.add(f"getelementptr {kind}, ptr {pointer}, i64 {index}")
        return self.add(f"load {kind}, ptr {place}")


def _step(step: Step, steps: Sequence[Step], registers: Sequence[str], before: _Lines, body: _Lines) -> str:
    """Add a step's instructions; return the register of its result."""
    operation, kind, arguments = step
    if operation == "constant":
        value = before.read("%constants", "double", str(arguments[0]))
        return value if kind == "f8" else before.chain(value, CONVERSIONS["f8", kind])
    if operation == "load":
        value = body.read(f"%a{arguments[0]}", MEMORY[kind], "%i")
        return body.chain(value, "trunc i8 {} to i1") if kind == "b1" else value
    if operation in DECODED:
        value = body.read(f"%a{arguments[0]}", MEMORY[operation], "%i")
        return _converted(body, _widened(body, value, operation), DECODED[operation], kind)
    values, first = [registers[place] for place in arguments], steps[arguments[0]][1]
    if operation == "astype":
        return _converted(body, values[0], first, kind)
    if operation == "view":
        return body.chain(values[0], VIEW[first, kind])
    if len(values) == 1:
        return body.chain(values[0], UNARY[operation, first])
    return body.add(f"{BINARY[first][operation]} {REGISTER[first]} {values[0]}, {values[1]}")


def _converted(body: _Lines, value: str, source: str, target: str) -> str:
    return value if source == target else body.chain(value, CONVERSIONS[source, target])


def _widened(body: _Lines, value: str, dtype: str) -> str:
    """Turn a stored number into one that holds it exactly."""
    if dtype == "BF16":
        return body.chain(value, "zext i16 {} to i32", "shl i32 {}, 16", "bitcast i32 {} to float")
    return body.chain(value, "fpext half {} to float") if dtype == "F16" else value


def _write(body: _Lines, target: str, value: str, kind: str) -> None:
    """Add the instructions that round a number to its place in the output."""
    if target == "BF16":
        value = _rounded(body, value)
    elif target == "F16":
        value = body.chain(value, "fptrunc float {} to half")
    elif target == "b1":
        value = body.chain(value, "zext i1 {} to i8")
    elif target in DECODED:
        value = _converted(body, value, kind, DECODED[target])
    place = body.add(f"getelementptr {MEMORY[target]}, ptr %out, i64 %i")
    body.lines.append(f"  store {MEMORY[target]} {value}, ptr {place}")


def _rounded(body: _Lines, value: str) -> str:
    """Round a float to bfloat16, to nearest even, as `encode` does; every NaN becomes the same."""
    nan = body.add(f"fcmp uno float {value}, 0.0")
    bits = body.add(f"bitcast float {value} to i32")
    half = body.chain(bits, "lshr i32 {}, 16", "and i32 {}, 1", "add i32 {}, 32767")
    carried = body.add(f"add i32 {half}, {bits}")
    chosen = body.add(f"select i1 {nan}, i32 {0x7FC00000}, i32 {carried}")
    return body.chain(chosen, "lshr i32 {}, 16", "trunc i32 {} to i16")
