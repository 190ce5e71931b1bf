"""Verify the records of a suite: list errors and assign each record a verification tier.

There are three tiers. `self-reported`: the record is what its suite, method and task declare.
`consistent with submitted predictions`: the predictions are stored with the record, and all metrics
after the last epoch are computed again from them and the true targets. `rerun`: an independent run
of the same cell gave the same result. docs/trust.md says what each of them proves.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import NamedTuple

from mixbench.datasets.locate import DataSource
from mixbench.errors import MixbenchError
from mixbench.leaderboard.admission import BUILTIN, CLOSE, Asked, Wrong, same_number
from mixbench.leaderboard.evidence import (
    TIERS_FILE,
    Evidence,
    Finding,
    artifact_path,
    read_evidence,
    tier_of,
)
from mixbench.leaderboard.history import History, history, missing
from mixbench.leaderboard.reruns import judged
from mixbench.leaderboard.rescoring import COMPACT, located, predictions_of, recomputed
from mixbench.leaderboard.table import OF_PROBABILITIES, SELF_REPORTED, TIERS
from mixbench.records.schema import Artifact, MetricRecord, Record
from mixbench.storage.files import write_json
from mixbench.storage.spec import PUBLISHED

CONSISTENT, RERUN = TIERS[1:]
PERFECT = 100.0
ROUNDED = 1e-3  # tolerance of metrics of probabilities from compact predictions


class Checked(NamedTuple):
    """The result of a verification.

    Attributes
    ----------
    findings
        Errors; the suite is refused if there are any.
    notes
        What a person should look at.
    tiers
        Tier of each valid record, by digest.
    """

    findings: list[Finding]
    notes: list[str]
    tiers: dict[str, str]


def verify(folder: Path, *, base: str | None = None, reruns: Iterable[Record] = ()) -> Checked:
    """Verify all files of a suite.

    Parameters
    ----------
    folder
        Folder of the suite.
    base
        Git commit to compare with. Its records, artifacts and figures must still exist unchanged,
        and earlier tiers are read from the verified.json of this commit. The commit of zeros that
        forges name before a first push means that there is nothing to compare with.
    reruns
        Records of independent runs of the same cells.

    Raises
    ------
    UsageError
        If suite.toml is not valid, or the commit is unknown.
    """
    evidence = read_evidence(folder)
    earlier = None if base is None else history(evidence, base)
    return check(evidence, earlier, reruns)


def check(evidence: Evidence, earlier: History | None, reruns: Iterable[Record]) -> Checked:
    """Verify the files of a suite that have been read, and compared with an earlier commit.

    Parameters
    ----------
    evidence
        The suite's folder.
    earlier
        Its files in the earlier commit; None if they are not to be compared.
    reruns
        Records of independent runs of the same cells.
    """
    folder, findings = evidence.folder, [*evidence.findings]
    known = evidence.tiers if earlier is None else earlier.tiers
    good = {path: record for path, record in evidence.records.items() if record.status == "ok"}
    new = frozenset(good if earlier is None else earlier.added)
    doubtful = dict(_suspicious(good, new))
    differing = judged(evidence.asked, good.values(), [r for r in reruns if r.status == "ok"])
    sources = _sources(evidence.asked, good.values())
    tiers: dict[str, str] = {}
    for path, record in evidence.records.items():
        tier = tier_of(known, record)
        if record.status == "ok":
            wrong = _recomputed(folder, record, sources[evidence.asked.table(record)])
            findings += [Finding(path, field, what) for field, what in wrong or ()]
            if wrong == [] and path not in doubtful:
                tier = max(tier, CONSISTENT, key=TIERS.index)
            rerun = differing.get(record.digest)
            if rerun:
                findings.append(Finding(path, "metrics", rerun))
            elif rerun is not None and not wrong:
                tier = RERUN
        if record.method.source != BUILTIN:
            tier = SELF_REPORTED
        tiers[record.digest] = tier
    notes = [f"{path}: {why}" for path, why in doubtful.items()]
    if earlier is not None:
        findings += missing(evidence, earlier)
        notes += earlier.notes
        findings += [
            Finding(folder / TIERS_FILE, digest, f"claims {tier!r}, which this did not confirm")
            for digest, tier in evidence.tiers.items()
            if TIERS.index(tier) > TIERS.index(tiers.get(digest, SELF_REPORTED))
        ]
    return Checked(findings, notes, tiers)


def note_tiers(folder: Path, tiers: Mapping[str, str]) -> None:
    """Write the tiers of records above ``self-reported`` to verified.json."""
    known = {digest: tier for digest, tier in sorted(tiers.items()) if tier != SELF_REPORTED}
    if known or (folder / TIERS_FILE).exists():
        write_json(folder / TIERS_FILE, known)


def _sources(asked: Asked, records: Iterable[Record]) -> dict[Hashable, DataSource | None]:
    """Return the data of each table, if it is here; finding it lists a million images."""
    tables = {asked.table(record): record for record in records}
    return {table: located(record) for table, record in tables.items()}


def _recomputed(folder: Path, record: Record, source: DataSource | None) -> list[Wrong] | None:
    """Return where data and metrics differ from the published data and the stored predictions.

    Return None if the published data or the predictions are not available.
    """
    if source is None or not {source.origin, record.data.origin} <= PUBLISHED:
        return None
    if source.digest != record.data.digest:
        return [Wrong("data.digest", f"must be {source.digest} for {record.data.origin} data")]
    named = [predictions_of(record), predictions_of(record, compact=True)]
    here = [(a, path) for a in named if a and (path := artifact_path(folder, a)).exists()]
    return _other_metrics(record, *here[0], source) if here else None


def _other_metrics(
    record: Record, artifact: Artifact, path: Path, source: DataSource
) -> list[Wrong]:
    """Return the fields of metrics after the last epoch that predictions do not give."""
    try:
        anew = {metric.name: metric for metric in recomputed(record, artifact, path, source)}
    except MixbenchError as error:
        return [Wrong("artifacts", str(error))]
    rounded = OF_PROBABILITIES if artifact.role == COMPACT else ()
    return [
        Wrong(f"metrics.{number}.{field}", said)
        for number, metric in enumerate(record.metrics)
        if metric.at == "last"
        for field, said in _differences(
            metric, anew[metric.name], ROUNDED if metric.name in rounded else CLOSE
        )
    ]


def _differences(
    metric: MetricRecord, expected: MetricRecord, tolerance: float
) -> Iterator[tuple[str, str]]:
    """Yield the fields of a metric that differ from those computed again."""
    for field in ("value", "stderr"):
        one, other = getattr(metric, field), getattr(expected, field)
        if not same_number(one, other, tolerance):
            yield field, f"the predictions give {other} (got {one})"
    by_class, other_classes = metric.by_class or {}, expected.by_class or {}
    if by_class.keys() != other_classes.keys() or not all(
        same_number(value, other_classes[name], tolerance) for name, value in by_class.items()
    ):
        yield "by_class", "is not what the predictions give"
    if metric.items != expected.items:
        yield "items", "are not what the predictions give"


def _suspicious(records: Mapping[Path, Record], new: Set[Path]) -> Iterator[tuple[Path, str]]:
    """Yield the records whose predictions prove nothing: perfect ones, or those of another.

    Of equal predictions, those of records that were there before are not in doubt.
    """
    owners: dict[str, list[Path]] = defaultdict(list)
    for path, record in records.items():
        if artifact := predictions_of(record):
            owners[artifact.sha256].append(path)
        perfect = record.primary.unit == "%" and record.primary.higher_is_better
        if perfect and record.primary.value == PERFECT:
            yield path, "is perfect, which predictions made of the public targets would be too"
    for paths in owners.values():
        for path in paths if len(paths) > 1 else ():
            if path in new:
                other = next(one for one in paths if one != path)
                yield path, f"has the same predictions as {other}"
