"""The interactive chat, and how an answer is shown in a terminal."""

import io
import sys
from pathlib import Path

from rich.console import Console

from phi4.assistant import Answer, AnswerStream, Assistant
from phi4.engine.sampling import Sampling
from phi4.errors import InputError, Phi4Error
from phi4.processing.messages import Message, user_message

HELP = "/image FILE and /audio FILE attach to your next message, /reset starts over, /quit or Ctrl-D ends."


class Chat:
    """One interactive conversation."""

    def __init__(self, assistant: Assistant, sampling: Sampling, system: str | None) -> None:
        self.assistant = assistant
        self.sampling = sampling
        self.opening = [Message("system", system)] if system is not None else []
        self.reset()

    def reset(self) -> None:
        """Forgets the conversation and what was attached."""
        self.messages = list(self.opening)
        self.images: list[bytes] = []
        self.sounds: list[bytes] = []

    def run(self) -> None:
        """Reads lines until the end of input; a bad line is reported and loses nothing."""
        print(HELP, file=sys.stderr)
        if isinstance(sys.stdin, io.TextIOWrapper):
            # A line that is no UTF-8 is refused by itself; read strictly it would take its neighbours with it.
            sys.stdin.reconfigure(errors="surrogateescape")
        while True:
            try:
                line = input("> " if sys.stdin.isatty() else "").strip()
                if line == "/quit":
                    return
                self.take(line)
            except EOFError:
                return
            except Phi4Error as error:
                print(f"error: {error}", file=sys.stderr)
            except KeyboardInterrupt:
                print("(stopped)", file=sys.stderr)

    def take(self, line: str) -> None:
        """Handles one line: a command, or a message to answer."""
        command, _, argument = line.partition(" ")
        match command:
            case "":
                return
            case "/reset":
                self.reset()
            case "/image":
                content = read_file(argument)
                self.assistant.processor.prepare([user_message("", images=[content])])
                self.images.append(content)
            case "/audio":
                content = read_file(argument)
                self.assistant.processor.prepare([user_message("", sounds=[content])])
                self.sounds.append(content)
            case _ if command.startswith("/"):
                raise InputError(f"unknown command {command}. {HELP}")
            case _:
                self.say(line)

    def say(self, text: str) -> None:
        """Sends a message with what was attached; both enter the history together with the answer."""

        messages = [*self.messages, user_message(text, self.images, self.sounds)]
        answer = show(self.assistant.reply(messages, sampling=self.sampling))
        self.messages = [*messages, Message("assistant", answer.text)]
        self.images, self.sounds = [], []


def read_file(name: str) -> bytes:
    """Reads a file that is to be attached; its content is kept, whatever happens to the file."""
    if not name:
        raise InputError("no file is named; write it behind the command, such as /image picture.png")
    try:
        return Path(name).expanduser().read_bytes()
    except OSError as error:
        raise InputError(f"{name} cannot be attached: {error.strerror}") from error
    except (RuntimeError, ValueError) as error:  # a home that nobody has; a name that no file can have
        raise InputError(f"{name!r} cannot be attached: {error}") from error


def show(stream: AnswerStream) -> Answer:
    """Prints an answer as it comes, then on stderr what was used for it."""
    has_begun = False
    try:
        for piece in stream:
            print(piece, end="", flush=True)
            has_begun = has_begun or bool(piece)
    except BaseException:  # Ctrl-C too: what is said about it begins a line of its own
        if has_begun:
            print()
        raise
    print()
    answer = stream.answer
    parts = [f"{len(answer.prompt_token_ids)} + {len(answer.token_ids)} tokens", f"{answer.seconds:.1f} s"]
    parts += [f"{modality} {tokens} tokens" for modality, tokens in answer.media]
    parts += [f"adapter {answer.adapter or 'none'}", f"rotary {answer.rotary}", answer.finish_reason]
    Console(stderr=True, highlight=False).print(" · ".join(parts), style="dim", soft_wrap=True)
    return answer
