"""What redaction finds and what it should have left alone, in percent, on texts made for it and on real answers.

Recall: the mean of all classes; progress shows each. Alterations: harmless texts that look like personal data, and
the honest answers of HaluEval where the shared data is present.
"""

from collections.abc import Mapping
from itertools import chain
from random import Random
from time import process_time

from optiinfra_pipelines_tests.benchmarks.bench import Bench
from optiinfra_pipelines_tests.benchmarks.child import run_apart
from optiinfra_pipelines_tests.benchmarks.figures import Benchmark, Pair

SEED, TEXTS = 20_261_121, 1_000


def recall(texts: int) -> Mapping[str, float]:
    """Task: per cent of so many planted `texts` a class whose value is gone after redaction, by class and in all."""
    from optiinfra_pipelines.llm.interaction import Texts
    from optiinfra_pipelines.llm.redaction import Redactor
    from optiinfra_pipelines_tests.llm.planted import VALUES, planted

    redactor, random, found = Redactor(), Random(SEED), {}
    for kind in VALUES:
        made = [planted(kind, random) for _ in range(texts)]
        gone = sum(not each.survives(redactor.redact(Texts(input=each.text))[0].input) for each in made)
        found[kind] = 100 * gone / texts
    return {**found, "all": sum(found.values()) / len(found)}


def false_alterations(texts: int) -> Mapping[str, float]:
    """Task: per cent of texts without personal data that redaction alters, and milliseconds of CPU a text."""
    from optiinfra_pipelines.llm.interaction import Texts
    from optiinfra_pipelines.llm.redaction import Redactor
    from optiinfra_pipelines_tests.llm.planted import ANSWERS, clean_answers, harmless

    redactor, random = Redactor(), Random(SEED)
    made = [Texts(input=harmless(random)[1]) for _ in range(texts)]
    clean = list(chain(made, clean_answers() if ANSWERS.exists() else ()))
    began = process_time()
    altered = sum(redactor.redact(each)[0] != each for each in clean)
    seconds = process_time() - began
    return {"altered": 100 * altered / len(clean), "ms": 1000 * seconds / len(clean), "texts": len(clean)}


def _recall(bench: Bench) -> Pair:
    found = run_apart(recall, _texts(bench)).numbers
    bench.say("recall: " + ", ".join(f"{kind} {share:.1f} %" for kind, share in found.items()))
    return Pair(found["all"])


def _false_alterations(bench: Bench) -> Pair:
    found = run_apart(false_alterations, 2 * _texts(bench)).numbers
    bench.say(f"{found['texts']:.0f} texts without personal data, {found['ms']:.3f} ms of CPU each")
    return Pair(found["altered"])


def _texts(bench: Bench) -> int:
    return TEXTS if bench.rows >= 1_000_000 else 50


PRIVACY = (
    Benchmark("redaction_recall", "%", "higher", None, ">= 99", _recall),
    Benchmark("redaction_false_alterations", "%", "lower", None, "<= 1", _false_alterations),
)
