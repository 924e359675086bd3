"""Functions compiled by LLVM for this processor, in this process."""

import ctypes
import platform
import sys
from collections.abc import Callable
from functools import cache
from threading import Lock
from typing import Any

OPTIMISED = 3
_COMPILING = Lock()
"""LLVM compiles in one thread at a time."""


@cache
def can_compile() -> bool:
    """Tell whether there is LLVM, and a processor that does all that loops ask of it."""
    try:
        import llvmlite.binding as llvm
    except ImportError:
        return False
    if platform.machine() in ("x86_64", "AMD64") and not llvm.get_host_cpu_features().get("f16c"):
        return False  # float16 would need functions of a library that is not there
    return sys.byteorder == "little"


def compile_loop(source: str, pointers: int) -> Callable[..., None]:
    """Compile a function @loop in LLVM's language, of two pointers, a size and so many pointers."""
    import llvmlite.binding as llvm

    with _COMPILING:
        engine, machine, names = _compiler()
        names.append(f"loop{len(names)}")
        module = llvm.parse_assembly(source.replace("@loop(", f"@{names[-1]}("))
        module.triple, module.data_layout = machine.triple, str(machine.target_data)
        options = llvm.create_pipeline_tuning_options(speed_level=OPTIMISED)
        options.loop_vectorization = True
        builder = llvm.create_pass_builder(machine, options)
        builder.getModulePassManager().run(module, builder)
        engine.add_module(module)
        engine.finalize_object()
        types = [ctypes.c_void_p] * 2 + [ctypes.c_int64] + [ctypes.c_void_p] * pointers
        function: Callable[..., None] = ctypes.CFUNCTYPE(None, *types)(engine.get_function_address(names[-1]))
        return function


@cache
def _compiler() -> tuple[Any, Any, list[str]]:
    """Return what owns compiled code, LLVM's view of this processor, and the names that are taken."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=OPTIMISED
    )
    # One engine for all functions: it takes the machine over, and no second one may.
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine), machine, []
