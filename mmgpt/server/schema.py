"""Schema of OpenAI's chat request: supported parameters, those without effect, and those that are refused.

Source: the reference of POST /v1/chat/completions on platform.openai.com. A parameter that would change the answer and
is not supported here is refused, so that nobody takes the answer for something else.
"""

from collections.abc import Collection, Sequence
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
from mmgpt.server.errors import ApiError, model_not_found

# A request may have so many brackets, braces and commas: each takes up to 256 bytes of memory once it is parsed.
MAX_MARKS = 200_000


class Strict(BaseModel):
    """JSON object with exactly the declared keys and types."""

    model_config = ConfigDict(strict=True, extra="forbid")


def only(*values: Any) -> Any:
    """Type of a parameter that is supported with some values only: null and those that have no effect."""

    def check(value: Any) -> Any:
        if value is None or any(type(value) is type(choice) and value == choice for choice in values):
            return value
        choices = " or ".join(map(repr, values)) or "null"
        raise PydanticCustomError("unsupported", "this server supports only {choices} here", {"choices": choices})

    return Annotated[Any, AfterValidator(check)]


class TextContent(Strict):
    """Text content of a message. The prefix cache needs no breakpoints, so that these have no effect."""

    type: Literal["text"]
    text: str
    prompt_cache_breakpoint: Any = None


class ImageUrl(Strict):
    """URL of an image. `detail` has no effect."""

    url: str
    detail: Literal["auto", "low", "high", "original"] | None = None


class ImageContent(Strict):
    """Image content of a message."""

    type: Literal["image_url"]
    image_url: ImageUrl
    prompt_cache_breakpoint: Any = None


Content = Annotated[TextContent | ImageContent, Field(discriminator="type")]


class Message(Strict):
    """Message of the conversation. Clients send answers back; their keys besides the text must be empty.

    An assistant's content may be null or missing, for an empty answer.
    """

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[Content], Field(validate_default=True)] = None
    name: str | None = None
    refusal: only() = None
    audio: only() = None
    annotations: only([]) = None
    function_call: only() = None
    tool_calls: only([]) = None

    @field_validator("content", mode="before")
    @classmethod
    def _as_list_of_contents(cls, content: Any, info: ValidationInfo) -> Any:
        role = info.data.get("role")
        if content is None and role == "assistant":
            return []
        if content is None and role:
            raise PydanticCustomError("content", "a {role} message needs a content", {"role": role})
        return [TextContent(type="text", text=content)] if isinstance(content, str) else content


class StreamOptions(Strict):
    """Options of a streamed response."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


StopText = Annotated[str, Field(min_length=1, max_length=200)]
# A single stop text may come without a list.
StopTexts = Annotated[
    list[StopText],
    Field(max_length=4),
    BeforeValidator(lambda stop: [stop] if isinstance(stop, str) else stop),
]
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
    stop: StopTexts | None = None
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

    # The scope of the prefix cache: cached prefixes are used only for requests of the same scope.
    user: str | None = None
    prompt_cache_key: str | None = None

    # These have no effect.
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_retention: Any = None
    prompt_cache_options: Any = None
    parallel_tool_calls: Any = None
    prediction: Any = None

    def max_answer_tokens(self) -> int | None:
        """The longest answer in tokens; None for the model's own setting."""
        return self.max_completion_tokens or self.max_tokens

    def scope(self) -> str:
        """The scope of the request in the prefix cache."""
        return self.prompt_cache_key or self.user or ""

    def generation(self) -> dict:
        """Generation arguments of transformers that the request sets; the model's own hold for all others.

        With a temperature all tokens can be sampled (`top_k=0`), or those of `top_p`.
        """
        arguments = {"max_new_tokens": self.max_answer_tokens(), "top_p": self.top_p}
        if self.temperature is not None:
            arguments["do_sample"] = self.temperature >= MIN_TEMPERATURE
            if arguments["do_sample"]:
                arguments |= {"temperature": self.temperature, "top_k": 0}
        return {name: value for name, value in arguments.items() if value is not None}


def read_request(body: bytes | bytearray, models: Collection[str], max_tokens: int) -> ChatRequest:
    """A chat request, parsed and checked.

    Args:
        body: JSON.
        models: names of the served models.
        max_tokens: the largest `max_tokens` that is accepted.

    Raises:
        ApiError: 400, or 404 for another model; names the first wrong parameter.
    """
    if sum(body.count(mark) for mark in b"[{,") > MAX_MARKS:
        raise ApiError(400, f"the request is too complex: it has more than {MAX_MARKS} brackets, braces and commas")
    try:
        request = ChatRequest.model_validate_json(body)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        param = param_name(problem["loc"])
        if problem["type"] == "extra_forbidden":
            message, code = f"{param} is not a parameter of this server", "unknown_parameter"
        else:
            message, code = f"{param}: {problem['msg']}" if param else problem["msg"], None
        raise ApiError(400, message, param or None, code) from error
    if request.model not in models:
        raise model_not_found(request.model, models)
    # Parameters must fit each other, and the server.
    if request.max_tokens and request.max_completion_tokens not in (None, request.max_tokens):
        raise ApiError(400, "max_tokens and max_completion_tokens differ: send one of them", "max_tokens")
    if (request.max_answer_tokens() or 0) > max_tokens:
        name = "max_completion_tokens" if request.max_completion_tokens else "max_tokens"
        raise ApiError(400, f"answers have at most {max_tokens} tokens here, got {request.max_answer_tokens()}", name)
    if request.top_logprobs is not None and not request.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs: true", "top_logprobs")
    if request.stream_options and not request.stream:
        raise ApiError(400, "stream_options needs stream: true", "stream_options")
    return request


def param_name(path: Sequence[str | int]) -> str:
    """Name of a parameter as in ``messages[0].content[1].text``, from pydantic's path to it."""
    name = ""
    for number, step in enumerate(path):
        if isinstance(step, int):
            name += f"[{step}]"
        # pydantic puts the type of a content between its index and its keys.
        elif number < 2 or not (isinstance(path[number - 1], int) and path[number - 2] == "content"):
            name += f".{step}" if name else step
    return name
