"""The covariance of a model's keys, and other second moments: computed once and cached, or read from given files.

The cache is the subfolder `covariance` of the cache folder (`tasks.system.cache`). A file's name is a digest of the
weights, the texts, the site, the dtypes, the number of texts and their length, so a change of any makes another file.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from overedit.editing.methods.base import CovarianceOptions, Progress, silent
from overedit.editing.methods.locate_then_edit.covariance import SecondMoment, second_moments
from overedit.editing.methods.locate_then_edit.curvature import curvature_of_texts, is_factor, site_of
from overedit.editing.model.anatomy import Anatomy
from overedit.editing.storage.atomic import remove_leftovers
from overedit.editing.storage.checksums import digest
from overedit.tasks.data.corpus import Corpus, open_corpus
from overedit.tasks.editing_job.covariance_files import (
    FORMAT,
    DamagedCovarianceError,
    as_stored,
    read_covariance,
    read_record,
    write_covariance,
)
from overedit.tasks.system.cache import cache_folder

logger = logging.getLogger(__name__)

KEY = "methods.covariance"
"""The configuration key of the options, for error messages."""


def covariance_of(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    options: CovarianceOptions,
    sites: Sequence[str],
    *,
    model_digest: str,
    progress: Progress = silent,
) -> dict[str, SecondMoment]:
    """Get second moments over a text: read from the cache, or computed in one pass for all that are missing and cached.

    Args:
        model: The pristine model.
        tokenizer: Its tokenizer.
        options: The text, or the given files.
        sites: Names of second moments, all of one kind: projections, e.g. `5.down_proj`, for C0 of their keys, or
            factors of the curvature, e.g. `5.down_proj.gradients`.
        model_digest: Digest of the model's weights.
        progress: Called with (texts done, total) while covariances are computed.

    Returns:
        Name -> second moment, on the device of its projection; bit-identical whether it was cached or just computed.

    Raises:
        ValueError: As `check_covariance`, or a site is not a projection of the model.
    """
    anatomy = Anatomy.of(model)
    weights = {name: anatomy.site_parameters(site_of(name))[0] for name in sites}
    devices = {name: model.get_parameter(weight).device for name, weight in weights.items()}
    if options.path is not None:
        files = given_files(options.path, sites, model_digest)
        return {site: read_covariance(file, devices[site]) for site, file in files.items()}
    corpus = open_corpus(options.corpus, options.num_samples, key=f"{KEY}.corpus")
    records = {site: _record(site, model.dtype, options, corpus, model_digest) for site in devices}
    found = {site: moment for site in devices if (moment := _cached(records[site], devices[site])) is not None}
    missing = [site for site in devices if site not in found]
    if missing:
        remove_leftovers(cache_folder("covariance"))
        read = curvature_of_texts if is_factor(missing[0]) else second_moments
        computed = read(model, tokenizer, corpus.texts, missing, max_length=options.max_length, progress=progress)
        found |= {site: _kept(records[site], moment) for site, moment in computed.items()}
    return {site: found[site] for site in devices}


def check_covariance(options: CovarianceOptions, sites: Sequence[str], *, model_digest: str) -> None:
    """Check the inputs of `covariance_of` before anything long starts.

    Raises:
        ValueError: There is no such corpus or it has no text; or the given path has no covariance of a site, or has
            one of another model. The message names key and value.
    """
    if options.path is not None:
        given_files(options.path, sites, model_digest)
        return
    texts = open_corpus(options.corpus, options.num_samples, key=f"{KEY}.corpus").texts
    if next(iter(texts), None) is None:
        raise ValueError(f"{KEY}.corpus: {options.corpus} holds no text")


def not_cached(options: CovarianceOptions, sites: Sequence[str], *, model_digest: str, dtype: torch.dtype) -> list[str]:
    """The names of second moments that have to be computed, for a model of this dtype; raises as `check_covariance`."""
    if options.path is not None:
        return []
    corpus = open_corpus(options.corpus, options.num_samples, key=f"{KEY}.corpus")
    return [site for site in sites if not cache_file(_record(site, dtype, options, corpus, model_digest)).exists()]


def covariance_key(options: CovarianceOptions, sites: Sequence[str], *, model_digest: str) -> Any:
    """A JSON-able key of the contents of the texts or given files, which the options only name.

    Raises:
        ValueError: As `check_covariance`.
    """
    if options.path is not None:
        files = given_files(options.path, sites, model_digest)
        return {site: read_record(path).sha256 for site, path in files.items()}
    return [FORMAT, open_corpus(options.corpus, options.num_samples, key=f"{KEY}.corpus").digest]


def given_files(path: Path, sites: Sequence[str], model_digest: str) -> dict[str, Path]:
    """Find the file of each site: the given file, or the one in the given folder that belongs to this model.

    Raises:
        ValueError: There is none, or only one of another model, or several, or a file is damaged.
    """
    path = path.expanduser()
    if not path.exists():
        raise ValueError(f"{KEY}.path: there is no file or folder {path}")
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    try:
        records = {file: read_record(file) for file in files}
    except DamagedCovarianceError as error:
        raise ValueError(f"{KEY}.path: {error}") from error
    found = {}
    for site in sites:
        of_site = {file: record for file, record in records.items() if record.site == site}
        mine = [file for file, record in of_site.items() if record.model_digest == model_digest]
        if not of_site:
            there = ", ".join(sorted({record.site for record in records.values()})) or "none"
            raise ValueError(f"{KEY}.path: {path} holds no covariance of site {site}; it holds: {there}")
        if not mine:
            file, record = next(iter(of_site.items()))
            raise ValueError(
                f"{KEY}.path: the covariance of site {site} in {file} is of another model: its weights' digest is "
                f"{record.model_digest}, this model's is {model_digest}"
            )
        if len(mine) > 1:
            names = ", ".join(file.name for file in mine)
            raise ValueError(f"{KEY}.path: {path} holds more than one covariance of site {site}: {names}; name one")
        found[site] = mine[0]
    return found


def cache_file(record: Mapping[str, Any]) -> Path:
    """The cache file of a covariance; its name does not depend on the corpus's name, only on its digest."""
    identity = {name: value for name, value in record.items() if name != "corpus"}
    return cache_folder("covariance") / f"{record['site']}-{digest(identity)}.safetensors"


def _record(
    site: str, dtype: torch.dtype, options: CovarianceOptions, corpus: Corpus, model_digest: str
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "site": site,
        "model_digest": model_digest,
        "model_dtype": str(dtype).removeprefix("torch."),
        "corpus": options.corpus,
        "corpus_digest": corpus.digest,
        "num_samples": options.num_samples,
        "max_length": options.max_length,
        "dtype": options.dtype,
    }


def _cached(record: Mapping[str, Any], device: torch.device) -> SecondMoment | None:
    path = cache_file(record)
    if not path.exists():
        return None
    try:
        there = read_record(path).model_dump()
        if any(there[name] != value for name, value in record.items() if name != "corpus"):
            raise DamagedCovarianceError(f"{path} does not match its name")
        return read_covariance(path, device)
    except DamagedCovarianceError as error:
        logger.warning("computing a covariance anew: %s", error)
        return None


def _kept(record: Mapping[str, Any], moment: SecondMoment) -> SecondMoment:
    """Write a covariance to the cache; if that fails, the run continues and the next one computes it again."""
    try:
        write_covariance(cache_file(record), moment, record)
    except OSError as error:
        logger.warning("a covariance could not be kept in the cache: %s", error)
    text = "covariance of %s over %s: %d tokens; its two halves differ by %.2g of it"
    logger.info(text, record["site"], record["corpus"], moment.num_tokens, moment.convergence)
    return as_stored(moment, record["dtype"])
