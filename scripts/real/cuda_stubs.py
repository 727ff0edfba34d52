"""Makes the registry's Linux build of torch importable without NVIDIA's libraries (2.8 GB that a CPU has no use for).

usage: python cuda_stubs.py [FOLDER OF torch]     needs gcc, nm and readelf

torch's shared objects name libraries that are not there, with versioned symbols. For each such library this compiles a small
stand-in that defines exactly the symbols asked of it, under the version nodes asked for, into torch/lib, where the loader looks
first. Every function answers 100, cudaErrorNoDevice, so that torch finds no GPU; functions that return text return text, since
torch prints it.
"""

import collections
import pathlib
import re
import subprocess
import sys
import sysconfig
import tempfile

NVIDIA = re.compile(r"lib(cu|nv|nccl)")
RETURNS_TEXT = re.compile(r"Get\w*(String|Name)$")
# Symbols without a version node are told apart by their first letters; the last row takes what is left of CUDA's driver.
UNVERSIONED = [
    ("nccl", "libnccl.so"),
    ("cusparseLt", "libcusparseLt.so"),
    ("cuFile", "libcufile.so"),
    ("nvshmem", "libnvshmem_host.so"),
    ("nvrtc", "libnvrtc.so"),
    ("cudnn", "libcudnn.so"),
    ("curand", "libcurand.so"),
    ("cu", "libcuda.so"),
]


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def needed(file: pathlib.Path) -> set[str]:
    return {name for name in re.findall(r"\(NEEDED\).*\[(.*)\]", run("readelf", "-dW", str(file))) if NVIDIA.match(name)}


def version_owners(file: pathlib.Path) -> dict[str, str]:
    """Which library each version node is expected in: readelf lists the nodes under their file."""
    owners: dict[str, str] = {}
    library = ""
    for line in run("readelf", "-VW", str(file)).splitlines():
        if found := re.search(r"File: (\S+)", line):
            library = found[1]
        elif library and (found := re.search(r"Name: (\S+)", line)):
            owners[found[1]] = library
    return owners


def symbols(file: pathlib.Path, which: str) -> list[tuple[str, str]]:
    """(name, version node or "") of the defined or undefined dynamic symbols."""
    found = []
    for line in run("nm", "-D", f"--{which}-only", "--with-symbol-versions", str(file)).splitlines():
        name, _, version = line.split()[-1].partition("@")
        found.append((name, version.lstrip("@")))
    return found


def wanted(folder: pathlib.Path) -> dict[str, dict[str, set[str]]]:
    """Library -> version node -> names."""
    files = sorted(folder.glob("*.so*"))
    libraries = set().union(*(needed(file) for file in files))
    own = [file for file in files if file.name not in libraries]  # leaves out stand-ins of an earlier run
    defined = {name for file in own for name, _ in symbols(file, "defined")}
    out: dict[str, dict[str, set[str]]] = {library: collections.defaultdict(set) for library in sorted(libraries)}
    for file in own:
        owners = version_owners(file)
        for name, version in symbols(file, "undefined"):
            if version:
                library = owners.get(version)
            else:
                library = None if name in defined else unversioned_owner(name, libraries)
            if library in out:
                out[library][version].add(name)
    return out


def unversioned_owner(name: str, libraries: set[str]) -> str | None:
    for start, library in UNVERSIONED:
        if name.startswith(start):
            return next((each for each in libraries if each.startswith(f"{library}.")), None)
    return None


def compile_stub(library: str, nodes: dict[str, set[str]], folder: pathlib.Path, scratch: pathlib.Path) -> int:
    names = sorted(set().union(*nodes.values())) if nodes else []
    source = scratch / f"{library}.c"
    source.write_text(
        "".join(
            f'const char *{name}(void) {{ return "no GPU"; }}\n' if RETURNS_TEXT.search(name) else f"int {name}(void) {{ return 100; }}\n"
            for name in names
        )
    )
    # -w, -fno-builtin: the signatures are not the real ones, and need not be.
    command = ["gcc", "-shared", "-fPIC", "-O1", "-w", "-fno-builtin", f"-Wl,-soname,{library}", "-o", str(folder / library), str(source)]
    versioned = {node: members for node, members in nodes.items() if node}
    if versioned:
        script = scratch / f"{library}.map"
        script.write_text(
            "".join(f"{node} {{ global: {' '.join(f'{name};' for name in sorted(members))} }};\n" for node, members in versioned.items())
        )
        command.append(f"-Wl,--version-script={script}")
    run(*command)
    return len(names)


def main() -> None:
    torch = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(sysconfig.get_paths()["purelib"]) / "torch"
    folder = torch / "lib"
    libraries = wanted(folder)
    with tempfile.TemporaryDirectory() as scratch:
        functions = sum(compile_stub(library, nodes, folder, pathlib.Path(scratch)) for library, nodes in libraries.items())
    print(f"{len(libraries)} libraries, {functions} functions")


if __name__ == "__main__":
    main()
