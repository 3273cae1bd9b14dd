"""The update of SGD with momentum for all parameters in one call, with Paddle's own numbers, bit for bit.

Paddle starts one operation a parameter, of which a small network has more than its arithmetic takes time for.
"""
import ctypes
import types
from collections.abc import Sequence

import numpy as np
import paddle

from asymmlib.fast.kernels import library

__all__ = ["fuse", "release_gradients", "unfuse"]


def fuse(optimizer: paddle.optimizer.Optimizer) -> None:
    """Let an optimiser, in place, update all its parameters at once; only `paddle.optimizer.Momentum` is changed.

    Its state, and the names in it, stay. A step that Paddle does in another way (the first one, which makes the state,
    clipped gradients, mixed precision) stays Paddle's. `clear_grad` gives gradients' memory
    back and does not fill it with zeros, which the next backward pass would have to add to.
    """
    if type(optimizer) is paddle.optimizer.Momentum:
        optimizer._apply_optimize = types.MethodType(_apply, optimizer)
        optimizer.clear_grad = types.MethodType(_clear, optimizer)


def unfuse(optimizer: paddle.optimizer.Optimizer) -> None:
    """Undo `fuse`."""
    for name in ("_apply_optimize", "clear_grad"):
        vars(optimizer).pop(name, None)


def release_gradients(parameters: Sequence[paddle.Tensor]) -> None:
    """Give the memory of gradients back."""
    for parameter in parameters:
        if not parameter.stop_gradient:
            parameter.clear_gradient(False)


def _clear(self, set_to_zero=False):
    return type(self).clear_grad(self, set_to_zero)


def _apply(self, loss, startup_program, params_grads, param_group_idx=0):
    """Paddle's `_apply_optimize` by one call of `kernels.cc`, where that does the same."""
    work = _work(self, params_grads) if isinstance(params_grads, list) and paddle.in_dynamic_mode() else None
    if not work:
        return type(self)._apply_optimize(self, loss, startup_program, params_grads, param_group_idx)
    *tensors, decays, rates = zip(*work, strict=True)
    pointers = np.array([[tensor.data_ptr() for tensor in row] for row in tensors], np.int64)
    sizes = np.array([tensor.size for tensor in tensors[0]], np.int64)
    decays, rates = np.array(decays, np.float32), np.array(rates, np.float32)
    library().momentum(ctypes.c_int64(len(sizes)), *(ctypes.c_void_p(table.ctypes.data) for table in (
        *pointers, sizes, decays, rates)), ctypes.c_float(self.get_lr()), ctypes.c_float(self._momentum),
        ctypes.c_int(self._use_nesterov))
    return []


def _work(self, params_grads):
    """(parameter, gradient, velocity, weight decay, share of the rate) of each; None where the kernel would not do what
    Paddle does."""
    velocities = self._accumulators.get(self._velocity_acc_str, {})
    usual = (self._grad_clip is None and self.regularization is None and self._rescale_grad == 1.0
             and not self._multi_precision and not self._use_multi_tensor
             and self._get_auxiliary_var("found_inf") is None)
    work, decay = [], self._regularization_coeff if self._regularization_method == "l2_decay" else 0.0
    for parameter, gradient in params_grads if usual else ():
        velocity, own = velocities.get(parameter.name), getattr(parameter, "regularizer", None)
        if velocity is None or not (own is None or isinstance(own, paddle.regularizer.L2Decay)):
            return None
        share = parameter.optimize_attr["learning_rate"]
        if not isinstance(share, int | float) or not (_plain(parameter) and _plain(gradient)):
            return None
        work.append((parameter, gradient, velocity, decay if own is None else own._coeff, share))
    return work


def _plain(tensor):
    return tensor.dtype == paddle.float32 and tensor.place.is_cpu_place() and tensor.is_contiguous()
