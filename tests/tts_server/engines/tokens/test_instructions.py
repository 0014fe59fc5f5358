"""Instructions reach the model whatever its template does with their roles."""

from typing import Any

import jinja2
import pytest

from tts_server.engines.tokens.instructions import Instructions, Turn
from tts_server.errors import InvalidRequest

RULE, MORE = "Answer in one word.", "Answer in French."
USER, ASSISTANT = {"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}

WRITES_ANY_ROLE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
DROPS_OTHERS = (
    "{% for m in messages %}{% if m.role in ('system', 'user', 'assistant') %}<{{ m.role }}>{{ m.content }}{% endif %}"
    "{% endfor %}"
)
KNOWS_DEVELOPERS = (
    "{% for m in messages %}<{{ 'rules' if m.role == 'developer' else m.role }}>{{ m.content | trim }}{% endfor %}"
)
REFUSES_OTHERS = (
    "{% for m in messages %}{% if m.role not in ('system', 'user', 'assistant') %}{{ stop('unknown role') }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}{% endfor %}"
)
REFUSES_A_LATER_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}{{ stop('system comes first') }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}{% endfor %}"
)
SHOWS_THE_FIRST_ALONE = (
    "{% if messages[0].role == 'system' %}<system>{{ messages[0].content }}{% endif %}"
    "{% for m in messages %}{% if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{% endif %}{% endfor %}"
)
REFUSES_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ stop('no system') }}{% endif %}"
    "{% if m.role in ('user', 'assistant') %}<{{ m.role }}>{{ m.content }}{% endif %}{% endfor %}"
)


def render(source: str) -> Any:
    def stop(message: str) -> None:
        raise jinja2.TemplateError(message)

    template = jinja2.Environment().from_string(source)

    def rendered(turns: list[Turn], variables: dict[str, Any]) -> str:
        try:
            return template.render(messages=turns, stop=stop, **variables)
        except jinja2.TemplateError as error:
            raise InvalidRequest(str(error)) from error

    return rendered


def shown(source: str, *turns: Turn) -> str:
    rendered: str = render(source)(Instructions(render(source)).placed(list(turns), {}), {})
    return rendered


def system(text: str) -> Turn:
    return {"role": "system", "content": text}


def developer(text: str) -> Turn:
    return {"role": "developer", "content": text}


@pytest.mark.parametrize(
    ("source", "rendered"),
    [
        (WRITES_ANY_ROLE, f"<system>{RULE}<user>Hi."),
        (DROPS_OTHERS, f"<system>{RULE}<user>Hi."),
        (REFUSES_OTHERS, f"<system>{RULE}<user>Hi."),
        (REFUSES_A_LATER_SYSTEM, f"<system>{RULE}<user>Hi."),
        (SHOWS_THE_FIRST_ALONE, f"<system>{RULE}<user>Hi."),
        (KNOWS_DEVELOPERS, f"<rules>{RULE}<user>Hi."),
        (REFUSES_SYSTEM, f"<user>{RULE}\n\nHi."),
    ],
)
def test_a_developers_words_are_shown_as_the_template_knows_them(source: str, rendered: str) -> None:
    assert shown(source, developer(RULE), USER) == rendered


@pytest.mark.parametrize(
    ("source", "rendered"),
    [
        (WRITES_ANY_ROLE, f"<system>{RULE}<user>Hi.<assistant>Hello.<system>{MORE}<user>Hi."),
        (DROPS_OTHERS, f"<system>{RULE}<user>Hi.<assistant>Hello.<system>{MORE}<user>Hi."),
        (KNOWS_DEVELOPERS, f"<system>{RULE}<user>Hi.<assistant>Hello.<rules>{MORE}<user>Hi."),
        (REFUSES_A_LATER_SYSTEM, f"<system>{RULE}\n\n{MORE}<user>Hi.<assistant>Hello.<user>Hi."),
        (SHOWS_THE_FIRST_ALONE, f"<system>{RULE}\n\n{MORE}<user>Hi.<assistant>Hello.<user>Hi."),
        (REFUSES_SYSTEM, f"<user>{RULE}\n\n{MORE}\n\nHi.<assistant>Hello.<user>Hi."),
    ],
)
def test_later_instructions_are_shown_too(source: str, rendered: str) -> None:
    assert shown(source, system(RULE), USER, ASSISTANT, developer(MORE), USER) == rendered


@pytest.mark.parametrize("source", [REFUSES_A_LATER_SYSTEM, SHOWS_THE_FIRST_ALONE])
def test_two_instructions_at_the_beginning_become_one(source: str) -> None:
    assert shown(source, system(RULE), developer(MORE), USER) == f"<system>{RULE}\n\n{MORE}<user>Hi."


def test_a_chat_without_instructions_and_one_that_is_shown_stay_as_they_are() -> None:
    instructions = Instructions(render(WRITES_ANY_ROLE))
    for turns in ([USER, ASSISTANT, USER], [system(RULE), USER]):
        assert instructions.placed(turns, {}) is turns


def test_what_no_arrangement_mends_is_left_to_the_templates_own_error() -> None:
    refuses_all = "{{ stop('never') }}"
    turns = [system(RULE), USER]
    assert Instructions(render(refuses_all)).placed(turns, {}) == turns


def test_instructions_without_a_question_are_the_users() -> None:
    assert shown(REFUSES_SYSTEM, system(RULE)) == f"<user>{RULE}"


def test_a_turn_without_a_role_is_the_templates_to_refuse() -> None:
    turns = [system(RULE), {"content": "Hi."}]
    assert Instructions(render(REFUSES_OTHERS)).placed(turns, {}) == turns
