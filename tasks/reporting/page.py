"""What every HTML page has in common: one file that needs nothing else, for a screen, a phone and paper."""

from typing import Any

from tasks.base.errors import plain_lines

VERDICT_COLOURS = {"PROMOTE": "#2a8f4f", "KEEP": "#b4552d", "INCONCLUSIVE": "#b8962e"}
STYLE = """
 :root { color-scheme: light }
 body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; overflow-wrap: anywhere }
 h1 { line-height: 1.2; margin-bottom: .3rem } h2 { margin-top: 2.2rem; border-bottom: 1px solid #ddd }
 h1, h2, h3 { break-after: avoid }
 table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto }
 td, th { padding: .3rem .7rem .3rem 0; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top }
 td, th { overflow-wrap: normal } th { font-weight: 600 }
 tr, figure { break-inside: avoid }
 figure { margin: 1rem 0 } figcaption { color: #555; font-size: .9rem }
 svg { display: block; width: 100%; height: auto; font: 12px system-ui, sans-serif }
 svg .mark:hover { stroke: #000; stroke-width: 2 }
 .narrow { display: none }
 .about, .legend { color: #555; font-size: .9rem; margin: .2rem 0 }
 .legend span { white-space: nowrap; margin-right: 1rem }
 .badge { color: #fff; padding: .15rem .6rem; border-radius: .3rem; font-size: 1rem; white-space: nowrap }
 .verdict { padding: .6rem 1rem; border-left: 5px solid; background: #f7f7f7 }
 .nights td:first-child { white-space: nowrap }
 summary { white-space: nowrap; cursor: pointer }
 .edge { border-left: 4px solid; padding-left: .5rem } .merge td { font-weight: 600 }
 .heat td { text-align: center; padding: .2rem .4rem; border: 1px solid #fff; font-size: .8rem }
 .heat th { font-size: .8rem; font-weight: 400; padding-right: .4rem; white-space: nowrap }
 @media (max-width: 640px) {
  body { margin: 1rem auto; padding: 0 .8rem } h1 { font-size: 1.5rem }
  td, th { padding-right: .5rem; font-size: .85rem } .wide { display: none } .narrow { display: block }
 }
 @media print {
  body { max-width: none; margin: 0; font-size: 10pt } table { display: table; overflow: visible }
  a { color: inherit } .wide { display: block } .narrow { display: none }
  * { print-color-adjust: exact } details::details-content { content-visibility: visible; display: block }
 }
"""
FRAME = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>{{ style | safe }}</style>
"""


def render_page(body: str, title: str, **values: Any) -> str:
    """Render a page from the template of its body; values are escaped unless the template says safe."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, finalize=shown_in_html, trim_blocks=True)
    return environment.from_string(FRAME + body).render(title=title, style=STYLE, **values)


def shown_in_html(value: Any) -> Any:
    """Return a value as a page shows it: no text from a run reorders or ends what is around it."""
    return plain_lines(value) if type(value) is str else value
