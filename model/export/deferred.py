"""Tensors of a checkpoint that are read only when they are written, so that an export has one of them in memory at a time.

    weight = Deferred.of_file(shard, "layers.0.mlp.up_proj.weight")
    both = torch.cat([weight.to(torch.float32), other.to(torch.float32)])   # Reads nothing; has a shape and a dtype.
    both.value()                                                            # Reads both, in float32.
    both.narrow, both.narrow_value()                                        # torch.bfloat16, and the same numbers in it.
"""

from pathlib import Path
from typing import Callable

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

ATEN = torch.ops.aten
# Operations that move numbers without changing them. If their inputs are exact in a narrow dtype, so are their results.
MOVES = {
    ATEN.alias, ATEN.cat, ATEN.clone, ATEN.detach, ATEN.flip, ATEN.index, ATEN.permute, ATEN.select, ATEN.slice, ATEN.split, ATEN.split_with_sizes, ATEN.squeeze,
    ATEN.stack, ATEN.t, ATEN.transpose, ATEN.unbind, ATEN.unsqueeze, ATEN.view, ATEN._unsafe_view, ATEN._reshape_alias, ATEN.zeros_like, ATEN.ones_like,
}  # fmt: skip
NARROW = (torch.bfloat16, torch.float16)


class Deferred(Tensor):
    """A tensor that is not in memory yet: a tensor of a file, or the result of operations on such tensors. In-place operations are not supported."""

    narrow: torch.dtype | None  # The 16-bit dtype that represents its numbers exactly, if any.
    value: Callable[[], Tensor]  # Computes the tensor again at every call.
    narrow_value: Callable[[], Tensor]  # Computes the tensor in `narrow`, if there is one.

    @staticmethod
    def __new__(cls, like: Tensor, narrow: torch.dtype | None, value: Callable, narrow_value: Callable) -> "Deferred":
        """Creates a tensor of the shape and dtype of `like`, which is on the meta device."""
        made = Tensor._make_wrapper_subclass(cls, like.shape, strides=like.stride(), dtype=like.dtype, device="cpu")
        made.like, made.narrow, made.value, made.narrow_value = like, narrow, value, narrow_value
        return made

    @classmethod
    def of_tensor(cls, tensor: Tensor) -> "Deferred":
        narrow = tensor.dtype if tensor.dtype in NARROW else None
        return cls(tensor.to("meta"), narrow, lambda: tensor, lambda: tensor)

    @classmethod
    def of_file(cls, file: Path, name: str, like: Tensor) -> "Deferred":
        """Returns a tensor of a safetensors file with the shape and dtype of `like`. Each call of value maps the file again, so that pages of earlier reads are
        released."""
        import safetensors

        def read() -> Tensor:
            with safetensors.safe_open(file, framework="pt") as shard:
                return shard.get_tensor(name)

        return cls(like.to("meta"), like.dtype if like.dtype in NARROW else None, read, read)

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function._schema.is_mutable:
            raise NotImplementedError(f"{function} on a tensor that is not there yet")
        if function.overloadpacket in (ATEN._local_scalar_dense, ATEN.equal):
            return function(*_values(args), **_values(kwargs))
        like = function(*tree_map(_like, args), **tree_map(_like_or_device, kwargs))
        narrow = _narrow_result(function, args, kwargs)

        def make(i: int | None, one: Tensor) -> Deferred:
            def pick(outcome):
                return outcome if i is None else outcome[i]

            def narrow_value() -> Tensor:
                if function.overloadpacket is ATEN._to_copy:
                    return args[0].narrow_value()
                return pick(function(*_narrow_values(args), **_narrow_values(kwargs)))

            return cls(one, narrow, lambda: pick(function(*_values(args), **_values(kwargs))), narrow_value)

        if isinstance(like, Tensor):
            return make(None, like)
        return type(like)(make(i, one) for i, one in enumerate(like))


def _narrow_result(function, args, kwargs) -> torch.dtype | None:
    kinds = {tensor.narrow for tensor in tree_flatten((args, kwargs))[0] if isinstance(tensor, Deferred)}
    if len(kinds) != 1:
        return None
    widens = function.overloadpacket is ATEN._to_copy and kwargs.get("dtype", torch.float32) in (torch.float32, torch.float64, *kinds)
    return kinds.pop() if widens or function.overloadpacket in MOVES else None


def _like(argument):
    if isinstance(argument, Deferred):
        return argument.like
    return argument.to("meta") if isinstance(argument, Tensor) else argument


def _like_or_device(argument):
    return torch.device("meta") if isinstance(argument, torch.device) else _like(argument)


def _values(arguments):
    return tree_map(lambda argument: argument.value() if isinstance(argument, Deferred) else argument, arguments)


def _narrow_values(arguments):
    """Returns the arguments with narrow values. Drops an explicit dtype (zeros_like), so that the result has the input's dtype."""
    given = {key: value for key, value in arguments.items() if key != "dtype"} if isinstance(arguments, dict) else arguments
    return tree_map(lambda argument: argument.narrow_value() if isinstance(argument, Deferred) else argument, given)
