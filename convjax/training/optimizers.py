"""Optimizers with Keras 3's definitions, and learning-rate schedules."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from convjax.config import RunConfig


def learning_rate_at(config: RunConfig, total_steps: int, peak: jax.Array, step: jax.Array) -> jax.Array:
    """The learning rate of a step: a linear warm-up to `peak`, then constant, cosine or linear to 0."""
    warmup, schedule = config.warmup_steps, config.schedule
    decay_steps = max(1, total_steps - warmup)
    if schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, decay_steps)
    elif schedule == "linear":
        after = optax.linear_schedule(peak, 0.0, decay_steps)
    else:
        after = optax.constant_schedule(peak)
    rate = after(step - warmup)
    if warmup:
        # (step + 1): a first step at rate 0 would be wasted.
        rate = jnp.where(step < warmup, peak * (step + 1).astype(jnp.float32) / warmup, rate)
    return jnp.asarray(rate, jnp.float32)


def make_optimizer(config: RunConfig, learning_rate: jax.Array) -> optax.GradientTransformation:
    """The optimizer with Keras 3's defaults: RMSprop is lr * g / sqrt(v + 1e-7), rho 0.9.

    Weight decay is decoupled, as in Keras: it bypasses the optimizer's statistics and momentum.
    """
    if config.optimizer == "rmsprop":
        optimizer = optax.rmsprop(learning_rate, decay=0.9, eps=1e-7, momentum=config.momentum or None)
    elif config.optimizer == "adam":
        optimizer = optax.chain(_scale_by_adam(), optax.scale_by_learning_rate(learning_rate))
    elif config.optimizer == "adamw":
        decay = optax.add_decayed_weights(config.weight_decay)
        return optax.chain(_scale_by_adam(), decay, optax.scale_by_learning_rate(learning_rate))
    else:
        optimizer = optax.sgd(learning_rate, momentum=config.momentum or None)
    if not config.weight_decay:
        return optimizer
    return optax.chain(optimizer, optax.add_decayed_weights(-learning_rate * config.weight_decay))


def _scale_by_adam() -> optax.GradientTransformation:
    """Adam as in Keras: epsilon is added to the uncorrected sqrt(v) (Kingma & Ba, 2015, end of section 2).

    optax adds it to the corrected one (their algorithm 1). In the first steps, where the correction is large, its
    epsilon is up to thirty times smaller, which matters for weights with very small gradients.
    """
    beta, epsilon = 0.999, 1e-7

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        step = (state.count + 1).astype(jnp.float32)
        scaled = optax.scale_by_adam(b2=beta, eps=epsilon / jnp.sqrt(1 - beta**step))
        return scaled.update(updates, state, params)

    return optax.GradientTransformation(optax.scale_by_adam().init, update)
