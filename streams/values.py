"""Classes of values, declared as the standard library's dataclasses with slots are, and made when the first value is.

The standard decorator compiles six methods for each class while its module is imported: 3.9 million instructions for
a class of five fields, and a command imports a hundred such classes and makes values of a few. Here `__init__` is
compiled when somebody first looks for it, and the other methods are shared by all. What the classes do is the same,
and `dataclasses` knows them; type checkers are told of the standard decorator.

Not taken, as nobody asks for it: `order`, `init`, `InitVar`, `__post_init__`, and of fields more than a default, its
factory, and what they are left out of.
"""

from __future__ import annotations

from collections import namedtuple
from operator import attrgetter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from dataclasses import dataclass, field, replace
    from typing import Any, NamedTuple
else:

    class _NamedTupleMaker(type):
        def __new__(cls, name, bases, space):
            types = space.pop("__annotations__", {})
            defaults = [space.pop(field) for field in types if field in space]
            made = namedtuple(name, types, defaults=defaults, module=space.pop("__module__"))
            made.__annotations__ = types
            for key, held in space.items():
                if key != "__classcell__":
                    setattr(made, key, held)
            return made

    class NamedTuple:
        """A tuple with names, without a look at what types they have."""

        def __mro_entries__(self, bases):
            return (type.__new__(_NamedTupleMaker, "NamedTuple", (), {}),)

    NamedTuple = NamedTuple()

    def dataclass(*, slots, frozen=False, kw_only=False):
        """Declare a class of values."""
        if not slots:
            raise TypeError("a class without slots is for the standard library to declare")
        return lambda cls: _declared(cls, frozen, kw_only)

    def field(**asked):
        """What is to be said of a field beyond its type."""
        return _Field(**asked)

    def replace(value, /, **changes):
        """A value that differs from another one in some fields; the other may be of a standard class, too."""
        fields = getattr(value, "__declared__", None) or value.__dataclass_fields__
        return value.__class__(**{name: getattr(value, name) for name in fields} | changes)


__all__ = ["NamedTuple", "dataclass", "field", "replace"]

_MISSING = object()


class _Field:
    """A field of a class, but for its name; its class says of what type it is, as it is written."""

    __slots__ = ("compare", "default", "default_factory", "hash", "kw_only", "repr", "type")

    def __init__(
        self,
        default: Any = _MISSING,
        default_factory: Any = _MISSING,
        compare: bool = True,
        hash: bool | None = None,
        repr: bool = True,
        kw_only: bool = False,
    ) -> None:
        if default.__hash__ is None:
            raise ValueError(f"all values would share {default!r}: it takes a default_factory")
        self.default = default
        self.default_factory = default_factory
        self.compare = compare
        self.hash = compare if hash is None else hash
        self.repr = repr
        self.kw_only = kw_only
        self.type = ""


def _declared(cls: Any, frozen: bool, kw_only: bool) -> Any:
    """The class with slots and the methods of a class of values, but for those that it has itself."""
    space = {name: held for name, held in cls.__dict__.items() if name not in ("__dict__", "__weakref__")}
    fields: dict[str, _Field] = {}
    for base in reversed(cls.__mro__[1:]):
        fields |= base.__dict__.get("__declared__", {})
    inherited = frozenset(fields)
    for name, annotation in space.get("__annotations__", {}).items():
        if not annotation.startswith("ClassVar"):
            default = space.pop(name, _MISSING)
            fields[name] = it = default if isinstance(default, _Field) else _Field(default)
            it.type = annotation
            it.kw_only |= kw_only
    methods = {
        "__init__": _LaterInit(),
        "__repr__": _repr,
        "__eq__": _eq,
        "__getstate__": _getstate,
        "__setstate__": _setstate,
        "__dataclass_fields__": _LaterFields(),
    }
    if frozen:
        methods |= {"__setattr__": _frozen, "__delattr__": _frozen}
    space |= {
        "__slots__": tuple(name for name in fields if name not in inherited),
        "__match_args__": tuple(name for name, it in fields.items() if not it.kw_only),
        "__declared__": fields,
        "__compared__": _getter(name for name, it in fields.items() if it.compare),
        "__hashed__": _getter(name for name, it in fields.items() if it.hash),
    }
    if space.get("__hash__") is None:  # as it is where there is an __eq__
        space["__hash__"] = _hash if frozen else None
    return type(cls)(cls.__name__, cls.__bases__, methods | space)


def _getter(names: Iterable[str]) -> attrgetter[Any]:
    return attrgetter(*(tuple(names) or ("__class__",)))


def _repr(self: Any) -> str:
    shown = (f"{name}={getattr(self, name)!r}" for name, it in self.__declared__.items() if it.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _eq(self: Any, other: Any) -> bool:
    return self.__compared__(self) == self.__compared__(other) if other.__class__ is self.__class__ else NotImplemented


def _hash(self: Any) -> int:
    return hash(self.__hashed__(self))


def _frozen(self: object, name: str, *value: object) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot change field {name!r}")


def _getstate(self: Any) -> list[Any]:
    return [getattr(self, name) for name in self.__declared__]


def _setstate(self: Any, state: list[Any]) -> None:
    for name, value in zip(self.__declared__, state, strict=True):
        object.__setattr__(self, name, value)


class _Later:
    """Stands where an attribute of a class will, and makes it when somebody looks for it."""

    name: str

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name
        self.owner = owner

    def __get__(self, value: object, cls: type) -> Any:
        setattr(self.owner, self.name, self.made(self.owner))
        return getattr(cls if value is None else value, self.name)

    def made(self, owner: Any) -> Any:
        """What to put there."""
        raise NotImplementedError


class _LaterInit(_Later):
    def made(self, owner: Any) -> Any:
        """The method `__init__`, which fills the slots."""
        space: dict[str, Any] = {"_MISSING": _MISSING}
        parameters: dict[bool, list[str]] = {False: [], True: ["*"]}
        body = []
        for name, it in owner.__declared__.items():
            space[f"_set_{name}"] = getattr(owner, name).__set__
            space[f"_default_{name}"] = it.default
            value, default = name, ""
            if it.default_factory is not _MISSING:
                space[f"_new_{name}"] = it.default_factory
                value, default = f"_new_{name}() if {name} is _MISSING else {name}", "=_MISSING"
            elif it.default is not _MISSING:
                default = f"=_default_{name}"
            parameters[it.kw_only].append(name + default)
            body.append(f" _set_{name}(self, {value})")
        listed = ", ".join(["self", *parameters[False], *(parameters[True] if parameters[True][1:] else ())])
        exec("\n".join([f"def __init__({listed}):", *(body or [" pass"])]), space)
        init = space["__init__"]
        init.__qualname__ = f"{owner.__qualname__}.__init__"
        init.__annotations__ = {name: it.type for name, it in owner.__declared__.items()} | {"return": "None"}
        return init


class _LaterFields(_Later):
    def made(self, owner: Any) -> Any:
        """What the standard library's functions ask a class for."""
        from dataclasses import field, make_dataclass

        fields = []
        for name, it in owner.__declared__.items():
            said = {key: getattr(it, key) for key in _Field.__slots__ if key != "type"}
            fields.append((name, it.type, field(**{key: it for key, it in said.items() if it is not _MISSING})))
        standard: Any = make_dataclass("_", fields)
        return standard.__dataclass_fields__
