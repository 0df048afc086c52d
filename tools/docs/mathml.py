"""Formulas as MathML, translated when the site is built: a page needs no scripts and no network.

Every current browser draws MathML. What cannot be translated is a warning, and make docs fails on
warnings. The font, STIX Two Math (SIL Open Font License, stated in the file itself), is copied out
of the installed package ziamath.
"""
import html
import shutil
from importlib.resources import as_file, files
from pathlib import Path
from xml.etree import ElementTree

from docutils import nodes
from latex2mathml.converter import convert
from latex2mathml.symbols_parser import convert_symbol
from sphinx.util import logging

FONT = "STIXTwoMath-Regular.ttf"
SPACE = "http://www.w3.org/1998/Math/MathML"
OPENING = set("([{⟨⌊⌈‖|,;:=<>≤≥≈∼∈→←↦∝+−±×·⋅/∪∩∖∑∏∫")  # a sign after these belongs to one number
FUNCTIONS = set("arg cos det dim exp gcd inf lim ln log max min mod sin sup tan tanh".split())
logger = logging.getLogger(__name__)


def tag(name: str) -> str:
    "The name of an element, as ElementTree has it."
    return f"{{{SPACE}}}{name}"


def translate(element) -> None:
    "A bracket of given size, which the converter leaves in LaTeX. Raises: ValueError otherwise."
    text = element.text or ""
    if text.startswith("\\"):
        code = convert_symbol(text)
        if code is None:
            raise ValueError(f"formula: {text} has no translation")
        element.text = chr(int(code, 16))


def enlarge_prime(element) -> None:
    "A prime beside its letter: it is small and high already, and as an exponent would be so twice."
    kinds = {tag("msup"): "mrow", tag("msubsup"): "msub"}
    if element.tag in kinds and element[-1].text in ("′", "″", "‴"):
        letter, *index, prime = element
        prime.tag = tag("mo")
        prime.attrib.update(lspace="0", rspace="0")
        pair = ElementTree.Element(tag("mrow"))
        pair.extend([letter, prime])
        element.tag, element[:] = tag(kinds[element.tag]), [pair, *index]


def space(row) -> None:
    "A sign stands close to its number, the name of a function apart from its neighbours."
    children = list(row)
    for before, child, after in zip([None, *children], children, [*children[1:], None]):
        starts = before is None or before.tag == tag("mspace") or (
            before.tag == tag("mo") and before.text in OPENING)
        if child.text in ("−", "+", "±") and starts:
            child.set("form", "prefix")
        if child.text in FUNCTIONS:
            child.tag = tag("mi")
            thin = ElementTree.Element(tag("mspace"), width="0.167em")
            if after is not None and after.text not in ("(", "[", "{", ")", ","):
                row.insert(list(row).index(child) + 1, thin)
            if before is not None and not starts and before.tag != tag("mo"):
                row.insert(list(row).index(child), thin)


def mathml(
    latex: str,  # a formula, without its dollars
    block: bool = False,  # on a line of its own
) -> str:
    "The formula as a <math> element. Raises: ValueError naming what has no translation."
    try:
        tree = ElementTree.fromstring(convert(latex, display="block" if block else "inline"))
    except Exception as error:  # the converter has one for each kind of fault, and lets others out
        raise ValueError(f"formula: {latex!r} cannot be read ({error!r})") from error
    for element in list(tree.iter()):
        translate(element)
        enlarge_prime(element)
        if element.text in ("‖", "|") and not element.attrib:  # not from \left, which may grow
            element.attrib.update(stretchy="false", lspace="0", rspace="0")
        if element.tag in map(tag, ("math", "mrow", "mstyle", "mtd")):
            space(element)
    ElementTree.register_namespace("", SPACE)
    return ElementTree.tostring(tree, encoding="unicode")


def written(latex: str, block: bool, node) -> str:
    "MathML, or the formula's source and a warning."
    try:
        return mathml(latex, block)
    except ValueError as error:
        logger.warning("%s", error, location=node, type="mathml")
        return f"<code>{html.escape(latex)}</code>"


def visit_inline(self, node) -> None:
    "A formula in a line of text."
    self.body.append(self.starttag(node, "span", "", CLASS="math"))
    self.body.append(written(node.astext(), False, node) + "</span>")
    raise nodes.SkipNode


def visit_block(self, node) -> None:
    "A formula on a line of its own, which can be scrolled where it is wide."
    self.body.append(self.starttag(node, "div", CLASS="math", tabindex="0"))
    self.body.append(written(node.astext(), True, node) + "</div>")
    raise nodes.SkipNode


def copy_font(app, failure) -> None:
    "The font, beside the style sheets."
    if failure is None and app.builder.format == "html":
        with as_file(files("ziamath") / "fonts" / FONT) as path:
            shutil.copy(path, Path(app.outdir) / "_static" / FONT)


def setup(app) -> dict:
    "Called by Sphinx."
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    app.connect("build-finished", copy_font)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
