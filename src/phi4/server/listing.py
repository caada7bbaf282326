"""`/v1/models`, `/tokenize`, `/detokenize`, `/tokenizer_info`: what is here, and how it counts."""

from starlette.requests import Request
from starlette.responses import Response

from phi4.errors import InputError
from phi4.server.conversation import read_conversation
from phi4.server.http_io import json_response, read_json_body, until_hung_up
from phi4.server.responses import DecodedText, ModelCard, ModelList, TokenizerInfo, Tokens
from phi4.server.schema import DetokenizeRequest, TokenizeRequest, read_request
from phi4.server.service import Service, service_of


async def list_models(request: Request) -> Response:
    """The base, and each pack that is resident on it."""
    return json_response(ModelList(model_cards(service_of(request))))


async def show_model(request: Request) -> Response:
    """One of them."""
    service = service_of(request)
    name = request.path_params["name"]
    service.check_model(name)
    (card,) = [card for card in model_cards(service) if card.id == name]
    return json_response(card)


def model_cards(service: Service) -> list[ModelCard]:
    """The base first."""
    base, context = service.model_id, service.processor.max_tokens
    packs = [ModelCard(name, service.created, context, base, modality) for name, modality in service.pack_ids.items()]
    return [ModelCard(base, service.created, context, None, None), *packs]


async def tokenize(http_request: Request) -> Response:
    """The token ids of a prompt or a conversation, as the endpoints that answer them would have them."""
    service = service_of(http_request)
    asked = read_request(TokenizeRequest, await read_json_body(http_request))
    service.check_model(asked.model)
    token_ids = await until_hung_up(http_request, service.prepare(lambda: _tokenize(service, asked)))
    return json_response(Tokens(token_ids, len(token_ids), service.processor.max_tokens))


def _tokenize(service: Service, asked: TokenizeRequest) -> list[int]:
    if asked.prompt is not None:
        return service.processor.tokenizer.encode(asked.prompt, allow_special=True)
    messages = read_conversation(asked.messages or [], service.limits)
    return list(service.processor.prepare(messages, asked.tools).token_ids)


async def detokenize(http_request: Request) -> Response:
    """The text of token ids, control tokens included."""
    service = service_of(http_request)
    asked = read_request(DetokenizeRequest, await read_json_body(http_request))
    service.check_model(asked.model)
    size = service.processor.vocab_size
    wrong = [token_id for token_id in asked.tokens if not 0 <= token_id < size]
    if wrong:
        raise InputError(f"there is no token {wrong[0]}: the vocabulary has {size}")
    return json_response(DecodedText(service.processor.tokenizer.decode(asked.tokens, skip_special=False)))


async def tokenizer_info(http_request: Request) -> Response:
    """What lm-evaluation-harness needs to encode texts here instead of with a tokenizer of its own.

    Nothing is put in front of a prompt, so that there is no token for the beginning of a text.
    """
    service = service_of(http_request)
    loaded, processor = service.assistant.loaded, service.processor
    end = processor.tokenizer.decode([loaded.generation.prefix_id], skip_special=False)
    return json_response(TokenizerInfo(end, processor.template.source))
