"""Every public docstring against numpydoc's rules, but for the habits that this file names."""

from __future__ import annotations

import inspect

import pytest
from numpydoc.docscrape import get_doc_object
from numpydoc.validate import Validator, validate

import xpconv
from xpconv._spec.parameters import ConvParameters

# An extended summary, See Also and Examples are there where they have something to say.
OPTIONAL = {"ES01", "SA01", "EX01"}


def names():
    for name in xpconv.__all__:
        public = getattr(xpconv, name)
        if name != "__version__":
            yield name
        if inspect.isclass(public):
            for member, value in vars(public).items():
                told = (inspect.isfunction(value) or isinstance(value, property)) and inspect.getdoc(value)
                if told and not member.startswith("_"):
                    yield f"{name}.{member}"


def is_habit(code, message, doc):
    told = doc.doc_all_parameters
    if code == "PR01":  # not documented: `**parameters` are told by `conv`; results and subclasses tell none
        missing = {*doc.signature_parameters} - {*told}
        return not told or ("**parameters" in told and missing <= {*ConvParameters.__annotations__})
    if code == "PR02":  # documented, but not in the signature, where the names themselves stand
        return message == "Unknown parameters {'**parameters'}"
    if code == "PR04":  # without a type: it says where the type stands
        return " ".join(told[message.split('"')[1]][1]).startswith(("As for `", "What `"))
    return code == "YD01" and doc.obj is xpconv.options  # a block whose `as` would get nothing


@pytest.mark.parametrize("name", list(names()))
def test_it_follows_the_rules_of_numpydoc(name):
    whole = f"xpconv.{name}"
    doc = Validator(get_doc_object(Validator._load_obj(whole)))
    found = [(code, message) for code, message in validate(whole)["errors"] if code not in OPTIONAL]
    assert not [fault for fault in found if not is_habit(*fault, doc)]
