"""Puts the C file that Triton compiles at its first start, compiled, where it looks for it (TRITON_CACHE_DIR).

No GPU and no driver are needed: the linker gets an empty libcuda.so.1 where the container toolkit puts the driver's,
TRITON_LIBCUDA_PATH, which is part of the name under which Triton looks.
"""

import os
import subprocess
from pathlib import Path

from triton.backends.nvidia import driver
from triton.runtime.build import compile_so_from_file

library = Path(os.environ["TRITON_LIBCUDA_PATH"], "libcuda.so.1")
if library.exists():
    raise SystemExit(f"{library} is there already: this is for the stage of an image that has no driver")
empty = ["gcc", "-shared", "-Wl,-soname,libcuda.so.1", "-x", "c", os.devnull, "-o", str(library)]
subprocess.run(empty, check=True)
try:
    compiled = compile_so_from_file(
        src_path=os.path.join(driver.dirname, "driver.c"),
        name="cuda_utils",
        library_dirs=driver.library_dirs(),
        include_dirs=driver.include_dirs,
        libraries=driver.libraries,
    )
finally:
    library.unlink()
print("compiled", compiled)
