"""The page in a real browser: typing, uploads, the microphone, stopping, by keyboard alone and on a narrow screen."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from phi4.checkpoint.presets import load_preset
from server.chromium import Page
from server.running import Running, picture_bytes, sound_bytes

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium; install it: apt-get install chromium")

LAST = "[...document.querySelectorAll('article.assistant')].at(-1)"
IS_DONE = f"{LAST}?.querySelector('footer').textContent !== '' && document.getElementById('stop').hidden"
NOTE = f"{LAST}.querySelector('footer').textContent"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    assert CHROMIUM is not None
    page = Page(CHROMIUM, tmp_path_factory.mktemp("profile"))
    yield page
    page.close()


@pytest.fixture
def page(browser: Page, server: Running) -> Page:
    """The page, with answers that are short."""
    browser.open("about:blank")
    browser.open(f"http://127.0.0.1:{server.port}/")
    browser.wait("document.getElementById('model').textContent === 'tiny'")
    browser.run("document.getElementById('max_tokens').value = 12")
    return browser


def say(page: Page, text: str) -> None:
    """Types into whatever has the focus, which must be the message, and sends it."""
    assert page.run("document.activeElement.id") == "text"
    page.call("Input.insertText", text=text)
    page.press("Enter", "\r", 13)


def make_endless(page: Page) -> None:
    """Has answers go on for long."""
    # The tiny model would end its noise anywhere; a page has no logit_bias, so the request is changed on its way.
    ends = ", ".join(f"{token_id}: -100" for token_id in load_preset("tiny").generation["eos_token_id"])
    page.run(
        "window.original ??= window.fetch; window.fetch = (url, options) => window.original(url, options?.body"
        f" ? {{...options, body: JSON.stringify({{...JSON.parse(options.body), logit_bias: {{{ends}}}}})}} : options)"
    )
    page.run("document.getElementById('max_tokens').value = 9000")


def test_a_question_is_answered_by_keyboard_alone(page: Page) -> None:
    say(page, "Hello <b>you</b>")
    page.wait(IS_DONE)
    assert page.run("document.querySelector('article.user p').textContent") == "Hello <b>you</b>"
    assert page.run(f"{LAST}.querySelector('p').textContent") != ""
    assert page.run(NOTE).startswith("adapter none · ")
    assert "tokens/s" in page.run(NOTE)
    say(page, "And then?")
    page.wait(f"document.querySelectorAll('article.assistant').length === 2 && {IS_DONE}")


def test_pictures_and_sounds_are_uploaded(page: Page, tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(picture_bytes())
    (tmp_path / "sound.wav").write_bytes(sound_bytes())
    page.choose_files("#file", tmp_path / "sound.wav", tmp_path / "picture.png")
    page.wait("document.querySelectorAll('#attachments li').length === 2")
    page.run("document.getElementById('text').focus()")
    say(page, "What is this?")
    page.wait(IS_DONE)
    assert page.run(NOTE).startswith("adapter vision · ")
    assert " · vision " in page.run(NOTE)
    assert " · speech 13 tokens" in page.run(NOTE)
    assert page.run("document.querySelectorAll('article.user img, article.user audio').length") == 2


def test_a_picture_is_dropped_or_pasted(page: Page) -> None:
    for event, field in (("DragEvent('drop'", "dataTransfer"), ("ClipboardEvent('paste'", "clipboardData")):
        page.run(
            "new Promise((done) => document.createElement('canvas').toBlob((blob) => {"
            "  const data = new DataTransfer(); data.items.add(new File([blob], 'canvas.png', {type: 'image/png'}));"
            f"  document.body.dispatchEvent(new {event}, {{{field}: data, bubbles: true, cancelable: true}})); done();"
            "}))"
        )
    page.wait("document.querySelectorAll('#attachments img').length === 2")
    page.run("document.querySelector('#attachments button').click()")
    assert page.run("document.querySelectorAll('#attachments li').length") == 1


def test_the_microphone_is_recorded_as_a_sound_that_the_server_reads(page: Page) -> None:
    page.run("document.getElementById('record').click()")
    page.wait("document.getElementById('record').getAttribute('aria-pressed') === 'true'")
    page.run("new Promise((done) => setTimeout(done, 700))")
    page.run("document.getElementById('record').click()")
    page.wait("document.querySelectorAll('#attachments audio').length === 1")
    page.run("document.getElementById('text').focus()")
    say(page, "What do you hear?")
    page.wait(IS_DONE)
    assert page.run(NOTE).startswith("adapter speech · ")


def test_escape_stops_an_answer(page: Page, server: Running) -> None:
    make_endless(page)
    say(page, "Hello")
    page.wait(f"{LAST}.querySelector('p').textContent.length > 3")
    page.press("Escape", code=27)
    page.wait(f"{NOTE} === 'stopped'")
    server.wait_until_idle()


def test_an_error_is_shown_and_its_question_comes_back(page: Page) -> None:
    page.run("document.getElementById('temperature').value = -1")
    say(page, "Hello")
    page.wait("document.querySelector('article.error')?.textContent.includes('temperature')")
    page.run("document.getElementById('temperature').value = 0")
    page.wait("document.getElementById('text').value === 'Hello' && document.activeElement.id === 'text'")
    page.press("Enter", "\r", 13)
    page.wait(f"{IS_DONE} && {NOTE}.startsWith('adapter none')")
    assert page.run("messages.length") == 2


def test_settings_may_be_left_empty(page: Page) -> None:
    for name in ("temperature", "top_p", "seed"):
        page.run(f"document.getElementById('{name}').value = ''")
    assert page.run("Object.keys(settings()).join()") == "max_tokens"
    say(page, "Hello")
    page.wait(f"{IS_DONE} && {NOTE}.startsWith('adapter none')")


def test_a_new_chat_knows_nothing_of_an_answer_that_it_broke_off(page: Page, server: Running) -> None:
    make_endless(page)
    say(page, "Hello")
    page.wait(f"{LAST}.querySelector('p').textContent.length > 3")
    page.run("document.getElementById('reset').click()")
    server.wait_until_idle()
    page.wait("document.getElementById('stop').hidden && document.querySelectorAll('article').length === 0")
    assert page.run("messages.length") == 0


def test_a_server_that_is_gone_is_named(page: Page) -> None:
    page.run("window.fetch = () => Promise.reject(new TypeError('Failed to fetch'))")
    say(page, "Hello")
    page.wait("document.querySelector('article.error')?.textContent.includes('cannot be reached')")


def test_a_missing_key_is_asked_for(browser: Page, start: Callable[..., AbstractContextManager[Running]]) -> None:
    with start(api_key="secret") as server:
        browser.open(f"http://127.0.0.1:{server.port}/")
        browser.wait("document.activeElement.id === 'key'")
        browser.call("Input.insertText", text="secret")
        browser.press("Enter", "\r", 13)
        browser.wait("document.getElementById('model').textContent === 'tiny'")


def test_nothing_is_wider_than_a_phone(page: Page) -> None:
    say(page, "A" * 300)
    page.wait(IS_DONE)
    assert page.run("document.documentElement.scrollWidth <= window.innerWidth")


def test_two_clicks_take_one_microphone(page: Page) -> None:
    page.run(
        "window.asked = 0; { const get = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);"
        " navigator.mediaDevices.getUserMedia = (wish) => { window.asked += 1; return get(wish); }; }"
    )
    page.run("document.getElementById('record').click(); document.getElementById('record').click()")
    page.wait("document.getElementById('record').getAttribute('aria-pressed') === 'true'")
    assert page.run("window.asked") == 1
    page.run("document.getElementById('record').click()")
    page.wait("document.getElementById('record').getAttribute('aria-pressed') === 'false'")


@pytest.mark.parametrize("key", ["secret", "schlüssel", "ключ"])
def test_a_question_without_the_key_leaves_the_focus_in_its_field(
    browser: Page, start: Callable[..., AbstractContextManager[Running]], key: str
) -> None:
    with start(api_key=key) as server:
        browser.open(f"http://127.0.0.1:{server.port}/")
        browser.wait("document.activeElement.id === 'key'")
        browser.run("document.getElementById('text').focus()")
        say(browser, "Hello")
        browser.wait("document.querySelector('article.error') && document.getElementById('stop').hidden")
        assert browser.run("document.activeElement.id") == "key"
        browser.call("Input.insertText", text=key)
        browser.run("document.getElementById('text').focus()")
        browser.run("document.getElementById('send').click()")
        browser.wait(IS_DONE)


def test_an_answer_that_a_limit_cut_says_so(page: Page) -> None:
    make_endless(page)
    page.run("document.getElementById('max_tokens').value = 12")
    say(page, "Hello")
    page.wait(IS_DONE)
    assert page.run(NOTE).endswith("cut off at the limit of tokens")


def test_text_that_comes_with_a_picture_of_itself_is_pasted_as_text(page: Page) -> None:
    assert page.run(
        "(() => { const data = new DataTransfer();"
        " data.setData('text/plain', 'a'); data.setData('text/html', '<b>a</b>');"
        " data.items.add(new File(['x'], 'image.png', {type: 'image/png'}));"
        " return document.getElementById('text').dispatchEvent(new ClipboardEvent('paste',"
        " {clipboardData: data, bubbles: true, cancelable: true})); })()"
    )
    assert page.run("document.querySelectorAll('#attachments li').length") == 0


def test_the_enter_that_ends_a_composition_sends_nothing(page: Page) -> None:
    page.run("document.getElementById('text').value = 'こんにち'")
    page.run(
        "document.getElementById('text').dispatchEvent(new KeyboardEvent('keydown',"
        " {key: 'Enter', keyCode: 229, bubbles: true, cancelable: true}))"
    )
    assert page.run("document.querySelectorAll('article').length") == 0


def test_a_page_that_may_have_no_microphone_says_why(page: Page) -> None:
    page.run("Object.defineProperty(navigator, 'mediaDevices', {value: undefined, configurable: true})")
    page.run("document.getElementById('record').click()")
    page.wait("document.querySelector('article.error')?.textContent.includes('https')")


def test_a_screen_reader_is_told_who_speaks(page: Page) -> None:
    say(page, "Hello")
    page.wait(IS_DONE)
    assert page.run("[...document.querySelectorAll('article')].map((one) => one.ariaLabel).join()") == "You,Answer"


def test_a_setting_that_is_no_number_is_refused(page: Page) -> None:
    page.run(
        "(() => { const one = document.getElementById('temperature');"
        " document.getElementById('settings').open = true; one.value = ''; one.focus(); })()"
    )
    page.call("Input.insertText", text="-")
    page.run("document.getElementById('text').focus()")
    say(page, "Hello")
    page.wait("document.querySelector('article.error')?.textContent.includes('temperature is no number')")
