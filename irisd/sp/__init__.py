"""Scalability Protocols (pure): hello, framing, headers and survey rounds.

Our own implementation of what nanomsg, nng and mangos speak. It knows bytes and
``now``, and nothing of sockets, keys or what the bodies mean; connections,
reconnecting and the handshake's time limit belong to the edges. PAIR1 and
SURVEYOR/RESPONDENT are whole; of the other protocols it knows the numbers.
"""

from __future__ import annotations

from irisd.sp.backtrace import encode_survey_id
from irisd.sp.endpoint import EndpointType
from irisd.sp.errors import SpError, SpFault, SpLimitError
from irisd.sp.framing import DEFAULT_MAX_SIZE, Buffer, Framing, MessageDecoder, MessageEncoder
from irisd.sp.hello import HELLO_SIZE, HelloDecoder, encode_hello
from irisd.sp.inbox import Inbox, Scratch
from irisd.sp.pair1 import DEFAULT_HOP_LIMIT, FIRST_HOP, PAIR1_HEADER_SIZE, split_pair1
from irisd.sp.respondent import Question, QuestionVerdict, Respondent
from irisd.sp.stream import SpStream
from irisd.sp.surveyor import Answer, AnswerVerdict, SurveyEnd, SurveyEnded, Surveyor

__all__ = [
    "DEFAULT_HOP_LIMIT",
    "DEFAULT_MAX_SIZE",
    "FIRST_HOP",
    "HELLO_SIZE",
    "PAIR1_HEADER_SIZE",
    "Answer",
    "AnswerVerdict",
    "Buffer",
    "EndpointType",
    "Framing",
    "HelloDecoder",
    "Inbox",
    "MessageDecoder",
    "MessageEncoder",
    "Question",
    "QuestionVerdict",
    "Respondent",
    "Scratch",
    "SpError",
    "SpFault",
    "SpLimitError",
    "SpStream",
    "SurveyEnd",
    "SurveyEnded",
    "Surveyor",
    "encode_hello",
    "encode_survey_id",
    "split_pair1",
]
