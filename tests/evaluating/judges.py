"""Judges of samples, good and bad."""

from __future__ import annotations


def longer(prompt: str, completion: str) -> float:
    return float(len(completion))


def in_batches(prompts: list[str], completions: list[str], **more: object) -> list[float]:
    return [float(len(c)) for c in completions]


def compares(prompt: str, a: str, b: str) -> float:
    return 0.5 if len(a) == len(b) else float(len(a) > len(b))


def of_trl(completions: list[str], **kwargs: object) -> list[float]:
    return [float(len(c)) for c in completions]


def raises(prompt: str, completion: str) -> float:
    raise ValueError("no key\nfor the service")


def nan(prompt: str, completion: str) -> float:
    return float("nan")


def words(prompt: str, completion: str) -> str:
    return "good"


def too_few(prompts: list[str], completions: list[str]) -> list[float]:
    return [1.0]


def too_sure(prompt: str, a: str, b: str) -> float:
    return 2.0


def lonely(completion: str) -> float:
    return 1.0


def no_answer(prompt: str, a: str, b: str) -> float:
    return float("nan")


nothing = 3
