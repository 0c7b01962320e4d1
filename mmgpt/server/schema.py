"""The chat request of OpenAI's interface: what is understood, what is accepted without effect, what is refused.

Source: the reference of POST /v1/chat/completions on platform.openai.com. A parameter that would change the answer and
is not done here is refused, so that nobody takes the answer for what it is not.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from mmgpt.inference.sampling import MIN_TEMPERATURE
from mmgpt.server.errors import ApiError

# Brackets, braces and commas of a request. Each takes up to 256 bytes once it is parsed, hundreds of times its own.
MAX_MARKS = 200_000


class Strict(BaseModel):
    """A JSON object of exactly these keys and types."""

    model_config = ConfigDict(strict=True, extra="forbid")


def only(*values: Any) -> Any:
    """The type of a parameter that is understood with some values only, those that ask for nothing special."""

    def check(value: Any) -> Any:
        if value is None or any(type(value) is type(each) and value == each for each in values):
            return value
        shown = " or ".join(map(repr, values)) or "null"
        raise PydanticCustomError("unsupported", "this server supports only {shown} here", {"shown": shown})

    return Annotated[Any, AfterValidator(check)]


class TextPart(Strict):
    """Some text of a message. The engine finds by itself what it has computed before, without breakpoints."""

    type: Literal["text"]
    text: str
    prompt_cache_breakpoint: Any = None


class ImageUrl(Strict):
    """Where a picture is. Pictures of every `detail` are read alike."""

    url: str
    detail: Literal["auto", "low", "high", "original"] | None = None


class ImagePart(Strict):
    """A picture of a message."""

    type: Literal["image_url"]
    image_url: ImageUrl
    prompt_cache_breakpoint: Any = None


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Message(Strict):
    """A message of the conversation; what clients send back of an answer besides its text must be empty.

    An assistant's content may be null or missing: it said nothing.
    """

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[Part], Field(validate_default=True)] = None
    name: str | None = None
    refusal: only() = None
    audio: only() = None
    annotations: only([]) = None
    function_call: only() = None
    tool_calls: only([]) = None

    @field_validator("content", mode="before")
    @classmethod
    def _as_parts(cls, content: Any, info: ValidationInfo) -> Any:
        role = info.data.get("role")
        if content is None and role == "assistant":
            return []
        if content is None and role:
            raise PydanticCustomError("content", "a {role} message needs a content", {"role": role})
        return [TextPart(type="text", text=content)] if isinstance(content, str) else content


class StreamOptions(Strict):
    """What a stream holds besides the answer."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


def _as_list(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


StopText = Annotated[str, Field(min_length=1, max_length=200)]
Count = Annotated[int, Field(ge=1)]


class ChatRequest(Strict):
    """The body of a chat request."""

    model: str
    messages: Annotated[list[Message], FailFast(), Field(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Annotated[list[StopText], Field(max_length=4), BeforeValidator(_as_list)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    n: only(1) = None
    frequency_penalty: only(0, 0.0) = None
    presence_penalty: only(0, 0.0) = None
    logit_bias: only({}) = None
    response_format: only({"type": "text"}) = None
    modalities: only(["text"]) = None
    moderation: only() = None
    audio: only() = None
    tools: only([]) = None
    tool_choice: only("none", "auto") = None
    functions: only([]) = None
    function_call: only("none", "auto") = None
    web_search_options: only() = None
    reasoning_effort: only("none") = None
    verbosity: only("medium") = None

    # Whose the request is: what is remembered of the texts of one is used for the same one only.
    user: str | None = None
    prompt_cache_key: str | None = None

    # Without effect.
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_retention: Any = None
    prompt_cache_options: Any = None
    parallel_tool_calls: Any = None
    prediction: Any = None

    def answer_length(self) -> int | None:
        """The most tokens of the answer, None where the model's own setting is meant."""
        return self.max_completion_tokens or self.max_tokens

    def scope(self) -> str:
        """The scope of what is remembered of the request's text."""
        return self.prompt_cache_key or self.user or ""

    def generation(self) -> dict:
        """Generation arguments of transformers; what the request leaves open is left to the model's own.

        A temperature means among all tokens (`top_k=0`), or those of `top_p`.
        """
        arguments = {"max_new_tokens": self.answer_length(), "top_p": self.top_p}
        if self.temperature is not None:
            arguments["do_sample"] = self.temperature >= MIN_TEMPERATURE
            if arguments["do_sample"]:
                arguments |= {"temperature": self.temperature, "top_k": 0}
        return {name: value for name, value in arguments.items() if value is not None}


def read_request(body: bytes | bytearray, model: str, max_tokens: int) -> ChatRequest:
    """A request's body, checked.

    Args:
        body: JSON.
        model: the name of the model that is served.
        max_tokens: the longest answer that can be asked for.

    Raises:
        ApiError: 400, or 404 for another model, with the first thing that is wrong.
    """
    if sum(body.count(mark) for mark in b"[{,") > MAX_MARKS:
        raise ApiError(400, f"the request has too many parts: more than {MAX_MARKS} brackets, braces and commas")
    try:
        request = ChatRequest.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error) from error
    if request.model != model:
        message = f"the model {request.model!r} does not exist: this server has {model!r}"
        raise ApiError(404, message, "model", "model_not_found")
    _check_together(request, max_tokens)
    return request


def _check_together(request: ChatRequest, max_tokens: int) -> None:
    """Raise for parameters that do not fit each other, or the server."""
    if request.max_tokens and request.max_completion_tokens not in (None, request.max_tokens):
        raise ApiError(400, "max_tokens and max_completion_tokens differ: give one of them", "max_tokens")
    if (request.answer_length() or 0) > max_tokens:
        name = "max_completion_tokens" if request.max_completion_tokens else "max_tokens"
        raise ApiError(400, f"answers have at most {max_tokens} tokens here, got {request.answer_length()}", name)
    if request.top_logprobs is not None and not request.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs: true", "top_logprobs")
    if request.stream_options and not request.stream:
        raise ApiError(400, "stream_options needs stream: true", "stream_options")


def _refusal(error: ValidationError) -> ApiError:
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = _place(problem["loc"])
    if problem["type"] == "extra_forbidden":
        return ApiError(400, f"{place} is no parameter that this server knows", place, "unknown_parameter")
    return ApiError(400, f"{place}: {problem['msg']}" if place else problem["msg"], place or None)


def _place(path: Sequence[str | int]) -> str:
    """Where a request is wrong, as ``messages[0].content[1].text``."""
    place = ""
    for number, step in enumerate(path):
        if isinstance(step, int):
            place += f"[{step}]"
        # pydantic puts the type of a part between its number and its keys.
        elif number < 2 or not (isinstance(path[number - 1], int) and path[number - 2] == "content"):
            place += f".{step}" if place else step
    return place
