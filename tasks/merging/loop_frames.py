"""Loops over arrays in LLVM's language: what is around the lines of loop_source.py."""

LANES = 512
"""An element's place modulo this is the lane that it is added to; lanes are added up at the end.

Fixed, because the order of the terms decides the last bits of a sum.
"""
APART = LANES + 16
"""From the lanes of one result to those of the next: at multiples of 4 KB processors mistake them for one."""
NOTED = 2048
"""Integers that are noted before they are counted: they stay in the processor's first cache."""

EACH_ELEMENT = """
declare float @llvm.fabs.f32(float)
declare double @llvm.fabs.f64(double)
define void @loop(ptr noalias %out, ptr noalias readonly %constants, i64 %size{parameters}) {{
entry:
{before}
  %none = icmp eq i64 %size, 0
  br i1 %none, label %end, label %body
body:
  %i = phi i64 [0, %entry], [%following, %body]
{body}
  %following = add nuw nsw i64 %i, 1
  %more = icmp ult i64 %following, %size
  br i1 %more, label %body, label %end
end:
  ret void
}}
"""
"""A loop over all elements."""

IN_LANES = f"""
declare float @llvm.fabs.f32(float)
declare double @llvm.fabs.f64(double)
define void @loop(ptr noalias %out, ptr noalias readonly %constants, i64 %size{{parameters}}) {{{{
entry:
{{before}}
  %none = icmp eq i64 %size, 0
  br i1 %none, label %end, label %row
row:
  %first = phi i64 [0, %entry], [%next, %done]
  %left = sub nuw nsw i64 %size, %first
  %few = icmp ult i64 %left, {LANES}
  %lanes = select i1 %few, i64 %left, i64 {LANES}
  br label %body
body:
  %lane = phi i64 [0, %row], [%following, %body]
  %i = add nuw nsw i64 %first, %lane
{{body}}
  %following = add nuw nsw i64 %lane, 1
  %more = icmp ult i64 %following, %lanes
  br i1 %more, label %body, label %done
done:
  %next = add nuw nsw i64 %first, {LANES}
  %again = icmp ult i64 %next, %size
  br i1 %again, label %row, label %end
end:
  ret void
}}}}
"""
"""A loop over rows of lanes: elements of one row are independent, which lets LLVM use vectors."""

_IN_CHUNKS = f"""
declare float @llvm.fabs.f32(float)
declare double @llvm.fabs.f64(double)
define void @loop(ptr noalias %out, ptr noalias readonly %constants, i64 %size{{parameters}}) {{{{
entry:
  %noted = alloca [{NOTED} x i32], align 64
{{before}}
  %none = icmp eq i64 %size, 0
  br i1 %none, label %end, label %row
row:
  %first = phi i64 [0, %entry], [%next, %done]
  %left = sub nuw nsw i64 %size, %first
  %few = icmp ult i64 %left, {NOTED}
  %integers = select i1 %few, i64 %left, i64 {NOTED}
  br label %body
body:
  %place = phi i64 [0, %row], [%following, %body]
  %i = add nuw nsw i64 %first, %place
{{body}}
  %following = add nuw nsw i64 %place, 1
  %more = icmp ult i64 %following, %integers
  br i1 %more, label %body, label %choose
choose:
{{choosing}}
count:
  %n = phi i64 [0, %choose.last], [%n.next, %count]
  %source = getelementptr i32, ptr %noted, i64 %n
  %value = load i32, ptr %source
  %number = zext i32 %value to i64
  %table = urem i64 %n, {{tables}}
  %begin = mul nuw nsw i64 %table, {{apart}}
  %index = add nuw nsw i64 %begin, %number
  %counter = getelementptr i32, ptr %out, i64 %index
  %before = load i32, ptr %counter
  %after = add i32 %before, 1
  store i32 %after, ptr %counter
  %n.next = add nuw nsw i64 %n, 1
  %n.more = icmp ult i64 %n.next, %chosen
  br i1 %n.more, label %count, label %done
done:
  %next = add nuw nsw i64 %first, {NOTED}
  %again = icmp ult i64 %next, %size
  br i1 %again, label %row, label %end
end:
  ret void
}}}}
"""
"""A loop over chunks: the body notes integers, for which LLVM uses vectors, then they are counted."""

_ALL = """
  %chosen = add i64 %integers, 0
  br label %choose.last
choose.last:
  br label %count
"""

_NOT_NEGATIVE = """
  br label %pack
pack:
  %m = phi i64 [0, %choose], [%m.next, %pack]
  %kept = phi i64 [0, %choose], [%chosen, %pack]
  %from = getelementptr i32, ptr %noted, i64 %m
  %candidate = load i32, ptr %from
  %to = getelementptr i32, ptr %noted, i64 %kept
  store i32 %candidate, ptr %to
  %keep = icmp sge i32 %candidate, 0
  %one = zext i1 %keep to i64
  %chosen = add nuw nsw i64 %kept, %one
  %m.next = add nuw nsw i64 %m, 1
  %m.more = icmp ult i64 %m.next, %integers
  br i1 %m.more, label %pack, label %choose.last
choose.last:
  %no.one = icmp eq i64 %chosen, 0
  br i1 %no.one, label %done, label %count
"""
"""Integers move up over those that are not counted: no branch, which the processor would have to foretell."""


def in_frame(frame: str, written: tuple[str, str], arrays: int) -> str:
    """Return a function: a frame around the lines before a loop and those of its body."""
    parameters = "".join(f", ptr noalias readonly %a{i}" for i in range(arrays))
    return frame.format(parameters=parameters, before=written[0], body=written[1])


def counting_frame(masked: bool, tables: int, apart: int) -> str:
    """Return a frame that counts what its body notes, in tables that begin so many counts apart."""
    lines = {"choosing": _NOT_NEGATIVE if masked else _ALL, "tables": tables, "apart": apart}
    frame = _IN_CHUNKS
    for name, value in lines.items():
        frame = frame.replace(f"{{{name}}}", str(value))
    return frame
