"""Puts the C file that Triton compiles at its first start, compiled, where it looks for it (TRITON_CACHE_DIR).

No GPU and no driver are needed: for the linker there is a libcuda.so.1 of empty functions, where the container toolkit
puts the driver's. That place, TRITON_LIBCUDA_PATH, is part of the name under which Triton looks. So is what Python says
of the platform, which depends on whether there is a command `file`: the final stage has none.
"""

import os
import re
import subprocess
from pathlib import Path

from triton.backends.nvidia import driver
from triton.runtime.build import compile_so_from_file, platform_key

path, os.environ["PATH"] = os.environ["PATH"], os.devnull
platform_key()  # once and for all
os.environ["PATH"] = path

source = Path(driver.dirname, "driver.c")
library = Path(os.environ["TRITON_LIBCUDA_PATH"], "libcuda.so.1")
if library.exists():
    raise SystemExit(f"{library} is there already: this is for the stage of an image that has no driver")
# Only a library with what is called is noted in what is linked.
called = sorted(set(re.findall(r"\bcu[A-Z]\w*(?=\()", source.read_text())))
functions = "\n".join(f"void {name}(void) {{}}" for name in called)
linker = ["gcc", "-shared", "-Wl,-soname,libcuda.so.1", "-x", "c", "-", "-o", str(library)]
subprocess.run(linker, input=functions, text=True, check=True)
try:
    compiled = compile_so_from_file(
        src_path=str(source),
        name="cuda_utils",
        library_dirs=driver.library_dirs(),
        include_dirs=driver.include_dirs,
        libraries=driver.libraries,
    )
finally:
    library.unlink()
if b"libcuda.so.1" not in Path(compiled).read_bytes():
    raise SystemExit(f"{compiled} was not linked with the driver's library")
print("compiled", compiled)
