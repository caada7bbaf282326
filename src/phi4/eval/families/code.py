"""Programs that unit tests judge: HumanEval and MBPP. What the model wrote runs in `sandbox` only."""

import math
import re
from collections.abc import Sequence
from functools import lru_cache

from phi4.engine.sampling import Sampling
from phi4.errors import InputError
from phi4.eval.rows import SourceRow
from phi4.eval.sandbox import KILLED, PASSED, check_sandbox, run_program
from phi4.eval.task import Generate, Item, Metric, Reply, Rows, Task
from phi4.processing.messages import Message

BLOCK = re.compile(r"```(?:python|py)?[^\S\n]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
GREEDY = Generate(Sampling(max_tokens=768))
# Several answers to each problem, as pass@k needs them (arXiv 2107.03374, section 2.1).
SAMPLED = Generate(Sampling(max_tokens=768, temperature=0.8, top_p=0.95, seed=0, n=10))


def pass_at(k: int) -> Metric:
    """The chance that one of k answers passes all tests, estimated without bias from the n that there are."""

    def statistics(item: Item, reply: Reply) -> Sequence[float]:
        passed = sum(_outcome(item, text) == PASSED for text in reply.texts)
        return (chance_of_one(len(reply.texts), passed, k), 1.0)

    return Metric(f"pass@{k}", statistics, check=check_sandbox)


def chance_of_one(answers: int, passed: int, k: int) -> float:
    """The chance that k of these answers, drawn at random, hold one that passed.

    Raises:
        InputError: there are fewer than k.
    """
    if answers < k:
        raise InputError(f"pass@{k} needs at least {k} answers to a problem, not {answers}; ask for n={k} of them")
    return 1 - math.comb(answers - passed, k) / math.comb(answers, k)


def _killed(item: Item, reply: Reply) -> Sequence[float]:
    return (float(sum(_outcome(item, text) == KILLED for text in reply.texts)), float(len(reply.texts)))


def _outcome(item: Item, text: str) -> str:
    program = "\n\n".join([item.details["before"], extract_code(text, item.details["stub"]), item.details["tests"]])
    return _run(program)


@lru_cache(maxsize=1024)
def _run(program: str) -> str:
    """Metrics of several k judge the same answers."""
    return run_program(program)


def extract_code(text: str, stub: str) -> str:
    """The code of an answer: its first block, or all of it; the body alone is put behind the stub.

    Args:
        text: the answer.
        stub: the beginning of the function that is asked for, or nothing.
    """
    blocks = BLOCK.findall(text)
    code = str(blocks[0]) if blocks else text
    return code if not stub or re.search(r"^\s*(?:async\s+)?def\s", code, re.MULTILINE) else stub + code


def _human_eval(row: SourceRow) -> Item:
    prompt, entry = row.text("prompt"), row.text("entry_point")
    start = prompt.rfind(f"def {entry}")
    if start < 0:
        raise row.error(f"the prompt defines no function {entry}")
    question = (
        "Complete this Python function. Answer with the whole function in a block of code.\n\n"
        f"```python\n{prompt.rstrip()}\n```"
    )
    details = {"before": prompt[:start], "stub": prompt, "tests": f"{row.text('test')}\n\ncheck({entry})"}
    return Item(row.text("task_id"), (Message("user", question),), details=details)


def _basic(row: SourceRow) -> Item:
    tests = "\n".join(row.texts("test_list"))
    task = row.text("text", "prompt")
    setup = row.fields.get("test_setup_code") or "\n".join(row.fields.get("test_imports") or ())
    question = f"{task}\nYour code should pass these tests:\n\n{tests}\n\nAnswer with Python in a block of code."
    details = {"before": "", "stub": "", "tests": f"{setup}\n{tests}"}
    worked = f"```python\n{row.text('code').strip()}\n```"
    return Item(row.text("task_id"), (Message("user", question),), worked=worked, details=details)


HUMAN_EVAL = Rows(
    "task_id, prompt, test and entry_point",
    _human_eval,
    "openai/openai_humaneval",
    "openai_humaneval/test*",
)
MBPP = Rows(
    "task_id, text or prompt, code, and test_list",
    _basic,
    "google-research-datasets/mbpp",
    "sanitized/test*",
    examples="sanitized/prompt*",
)

# Share of the programs that went over a limit, such as loops without end, or ended without saying how.
KILLED_PROGRAMS = Metric("killed", _killed, higher_is_better=False, check=check_sandbox)

TASKS = (
    Task("humaneval", GREEDY, (pass_at(1), KILLED_PROGRAMS), HUMAN_EVAL),
    Task("humaneval_sampled", SAMPLED, (pass_at(1), pass_at(10), KILLED_PROGRAMS), HUMAN_EVAL),
    Task("mbpp", GREEDY, (pass_at(1), KILLED_PROGRAMS), MBPP),
    Task("mbpp_sampled", SAMPLED, (pass_at(1), pass_at(10), KILLED_PROGRAMS), MBPP),
)
