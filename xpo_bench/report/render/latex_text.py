"""Names and texts as LaTeX shows them: nothing in them is a command, and few need more than pdfLaTeX."""

from __future__ import annotations

import re
import unicodedata

from xpo_bench.report.format import clean

_ASCII = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    '"': r"\textquotedbl{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    # behind the \\ of a row a bracket would be its optional argument, and a star its variant
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    **{c: f"\\{c}" for c in "_&%#${}"},
}
_GREEK = {"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "varepsilon", "ζ": "zeta", "η": "eta"}
_GREEK |= {"θ": "theta", "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi"}
_GREEK |= {"ρ": "rho", "ς": "varsigma", "σ": "sigma", "τ": "tau", "υ": "upsilon", "φ": "varphi", "χ": "chi"}
_GREEK |= {"ψ": "psi", "ω": "omega", "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi"}
_GREEK |= {"Π": "Pi", "Σ": "Sigma", "Υ": "Upsilon", "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega"}
_VARIANTS = {"ϕ": "phi", "ϵ": "epsilon", "ϑ": "vartheta", "ϱ": "varrho", "µ": "mu"}
_RELATIONS = {"±": "pm", "×": "times", "÷": "div", "·": "cdot", "≤": "leq", "≥": "geq", "≠": "neq"}
_RELATIONS |= {
    "≈": "approx",
    "∼": "sim",
    "≡": "equiv",
    "∝": "propto",
    "≻": "succ",
    "≺": "prec",
    "⪰": "succeq",
}
_RELATIONS |= {"→": "rightarrow", "←": "leftarrow", "↔": "leftrightarrow", "⇒": "Rightarrow", "↑": "uparrow"}
_RELATIONS |= {
    "↓": "downarrow",
    "∞": "infty",
    "∈": "in",
    "∑": "sum",
    "∏": "prod",
    "√": "surd",
    "∂": "partial",
}
_RELATIONS |= {"∇": "nabla", "∥": "parallel", "‖": "|", "⊥": "perp", "∩": "cap", "∪": "cup", "∅": "emptyset"}
_RELATIONS |= {
    "∀": "forall",
    "∃": "exists",
    "¬": "neg",
    "⟨": "langle",
    "⟩": "rangle",
    "ℓ": "ell",
    "★": "star",
}
_TYPE = {"–": "--", "—": "---", "−": "$-$", "…": r"\ldots{}", "“": r"\textquotedblleft{}"}
_TYPE |= {"”": r"\textquotedblright{}", "‘": r"\textquoteleft{}", "’": r"\textquoteright{}"}
_TYPE |= {"„": r"\quotedblbase{}", "‚": r"\quotesinglbase{}", "«": r"\guillemotleft{}"}
_TYPE |= {"»": r"\guillemotright{}"}
_TYPE |= {"\u00a0": "~", "\u2009": r"\,", "\u202f": r"\,", "†": r"\dag{}", "‡": r"\ddag{}", "§": r"\S{}"}
_TYPE |= {"¶": r"\P{}", "°": r"$^\circ$", "′": r"$'$", "″": r"$''$", "€": r"\texteuro{}", "£": r"\pounds{}"}
_TYPE |= {"½": r"$\frac{1}{2}$", "¼": r"$\frac{1}{4}$", "¾": r"$\frac{3}{4}$", "•": r"$\bullet$"}
_RAISED = {c: f"$^{{{n}}}$" for c, n in zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", [*"0123456789", "-", "+"], strict=True)}
_LOWERED = {c: f"$_{{{n}}}$" for c, n in zip("₀₁₂₃₄₅₆₇₈₉₋₊", [*"0123456789", "-", "+"], strict=True)}

COMMANDS: dict[str, str] = {
    **_ASCII,
    **{c: f"$\\{name}$" for c, name in (_GREEK | _VARIANTS | _RELATIONS).items()},
    **_TYPE,
    **_RAISED,
    **_LOWERED,
}
"""Character -> what stands for it."""
_LATIN = frozenset(map(chr, range(0xC0, 0x17F))) - frozenset("×÷ĦħĸĿŀŉŦŧ")
"""Letters that stand for themselves under pdfLaTeX with the font encoding T1."""
_MINUS = re.compile(r"(?<![\w.)\]-])-(?=\.?\d)|(?<=\de)-(?=\d)")
_LIGATURES = re.compile("(?<=[-–—])(?=[-–—])|(?<=,)(?=,)|(?<=')(?=')")
"""Between two characters that would print as another one."""


def escape(text: object) -> str:
    r"""One line of text that LaTeX shows as it is.

    `-0.5±0.1` becomes `$-$0.5$\pm$0.1`, with the digits outside the formula, so that bold reaches them. What
    `COMMANDS` does not know stays as it is: `foreign` names it.
    """
    plain = _MINUS.sub("−", unicodedata.normalize("NFC", clean(text)))
    return "{}".join("".join(COMMANDS.get(c, c) for c in part) for part in _LIGATURES.split(plain))


def foreign(text: str) -> list[str]:
    """The characters of a text that pdfLaTeX cannot print; XeLaTeX and LuaLaTeX can, with a font that has
    them.
    """
    return sorted({c for c in text if not c.isascii() and c not in _LATIN})


def slug(text: str) -> str:
    """A part of a label: lower-case ASCII letters, digits and hyphens."""
    plain = unicodedata.normalize("NFKD", clean(text)).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
