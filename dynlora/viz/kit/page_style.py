"""The page's style sheet: what streamlit's theme cannot say."""

from __future__ import annotations

from dynlora.viz.kit.theme import Palette


def style_sheet(colours: Palette) -> str:
    """Return the page's style sheet: what streamlit's theme cannot say, cards as panels foremost.

    Streamlit's own "Stop", which ends the drawing of a slow page, goes: it looked as if it stopped the run.
    The label of an opened tertiary button is the accent: streamlit's own is a shade that a dark page hides.
    The CSV button of streamlit's tables goes, because its files let a text be a formula; each table has a safe one.
    """
    return f"""<style>
[class*="st-key-card-"] {{ background: {colours.panel}; border-color: {colours.hairline} !important;
  border-radius: 10px; padding: 0.9rem 1rem 0.7rem; }}
[class*="st-key-figures"] [data-testid="stMetric"] {{ width: auto; }}
[class*="st-key-figures"] {{ column-gap: 1.75rem; row-gap: 0.5rem; }}
[data-testid="stMetricValue"] {{ font-size: 1.45rem; font-weight: 650; line-height: 1.25; }}
[data-testid="stMetricLabel"] p {{ color: {colours.muted}; font-size: 0.8rem; }}
[data-testid="stMainBlockContainer"] {{ padding: 2.9rem 2rem 3rem; max-width: 1320px; }}
[data-testid="stHeader"] {{ background: transparent; height: 2.6rem; min-height: 2.6rem; }}
[data-testid="stStatusWidget"] button {{ display: none; }}
[data-testid="stProgressBarTrack"] {{
  background-color: {colours.hairline}; }}
@media (min-width: 641px) {{
  section[data-testid="stSidebar"]:not([aria-expanded="false"]) {{
    width: 190px !important; min-width: 190px !important; }}
}}
[data-testid="stElementToolbarButton"]:has(button[aria-label^="Download as CSV"]),
button[aria-label^="Download as CSV"] {{ display: none; }}
button[data-variant="segmented_control"][aria-checked="true"] p,
button[data-variant="pills"][aria-pressed="true"] p {{ color: {colours.accent}; }}
[data-testid="stSliderThumbValue"], [role="tab"][aria-selected="true"] p {{ color: {colours.accent} !important; }}
button[kind="tertiary"][aria-expanded="true"], button[kind="tertiary"]:active {{ color: {colours.accent}; }}
[data-testid="stMain"] [data-testid="stButtonGroup"] [role="radiogroup"] {{ flex-wrap: wrap; }}
[data-testid="stMarkdownContainer"]:has(table) {{ overflow-x: auto; }}
.st-key-suggestions button [data-testid="stMarkdownContainer"], .st-key-suggestions button p {{ white-space: normal;
  text-align: left; }}
[data-testid="stSelectbox"] input {{ text-overflow: ellipsis; }}
.katex-display {{ overflow-x: auto; overflow-y: hidden; }}
@media (max-width: 640px) {{
  :is(.st-key-card-effects, .st-key-card-importance_by_group) {{ overflow-x: auto; }}
  :is(.st-key-chart-effects, .st-key-chart-importance_by_group) {{ min-width: 44rem; }} }}
[data-testid="stSidebarHeader"] {{ height: 2.4rem; }}
[data-testid="stMainBlockContainer"] h1 {{ font-size: 1.7rem; padding: 0 0 0.1rem; overflow-wrap: anywhere; }}
[class*="st-key-card-"] [data-testid="stMarkdownContainer"]:has(h5) {{ margin-bottom: 0 !important; }}
[class*="st-key-card-"] h5 {{ padding: 0 0 0.45rem; font-weight: 650; font-size: 0.98rem; }}
[class*="st-key-card-"] [data-testid="stCaptionContainer"] p {{ font-size: 0.84rem; overflow-wrap: anywhere; }}
{_text_styles(colours)}{_home_styles(colours)}{_view_styles(colours)}{_LIST_STYLES}{_CHART_STYLES}
[class*="st-key-under-"] {{ flex-wrap: nowrap !important; }}
[class*="st-key-under-"] > div:first-child {{
  flex: 1 1 0 !important; min-width: 0 !important; width: auto !important; }}
@media (min-width: 641px) {{
  .st-key-tour-hint {{ flex-wrap: nowrap !important; }}
  .st-key-tour-hint > div:first-child {{ flex: 1 1 0 !important; min-width: 0 !important; width: auto !important; }}
  [class*="st-key-health-"] > div:nth-child(2) {{
    flex: 1 1 11rem !important; min-width: 0 !important; width: auto !important; }}
}}
@media (min-width: 641px) {{
  [data-testid="stColumn"]:has([data-testid="stSelectbox"]) {{ min-width: 9.5rem; }}
}}
@media (max-width: 1200px) {{
  [data-testid="stHorizontalBlock"]:has(> [data-testid="stColumn"] .st-key-card-shrink-picture) {{
    flex-direction: column; }}
  [data-testid="stColumn"]:has(.st-key-card-shrink-curve, .st-key-card-shrink-picture) {{
    width: 100%; flex: 1 1 100%; }}
}}
@media (max-width: 960px) {{
  .st-key-selection:has(> .st-key-address-runs) > div {{ flex: 1 1 100% !important; }}
  [data-testid="stHorizontalBlock"]:has([data-testid="stSelectbox"])
    > [data-testid="stColumn"]:has([data-testid="stSlider"]) {{ min-width: 100%; }}
  [data-testid="stHorizontalBlock"]:has(> [data-testid="stColumn"] [class*="st-key-card-"]) {{
    flex-direction: column; }}
  [data-testid="stHorizontalBlock"] > [data-testid="stColumn"]:has([class*="st-key-card-"]),
  .st-key-tour-stop [data-testid="stColumn"] {{ width: 100% !important; flex: 1 1 100% !important; }}
  [data-testid="stLayoutWrapper"]:has(> .st-key-actions-left) {{ flex: 1 0 100% !important; }}
}}
@media (max-width: 640px) {{
  [data-testid="stLayoutWrapper"]:has(> .st-key-links-of-run) {{ flex: 1 0 100%; }}
  .st-key-links-of-run {{ column-gap: 0.2rem; }}
  .st-key-links-of-run a {{ padding: 0.25rem 0.45rem 0.25rem 0; }}
  .st-key-views-of-run {{ column-gap: 1rem; }}
  .st-key-views-of-run a p {{ font-size: 0.86rem; }}
  .st-key-tour-hint {{ flex-wrap: wrap !important; }}
  .st-key-playground-choices > div {{ flex: 1 1 100% !important; width: 100% !important; }}
  [data-testid="stButtonGroup"] [role="radiogroup"] {{ flex-wrap: wrap; }}
  [class*="st-key-method-head-"] [data-testid="stCaptionContainer"] {{ display: none; }}
  [data-testid="stMainBlockContainer"] {{ padding: 3.9rem 0.7rem 2rem; }}
  [class*="st-key-card-"] {{ padding: 0.7rem 0.6rem; }}
}}
</style>"""


_CHART_STYLES = """.st-key-page-tools, [data-testid="stLayoutWrapper"]:has(> .st-key-page-tools),
[data-testid="stLayoutWrapper"]:has(> [class*="st-key-unseen"]) { display: none; }
[class*="st-key-head-"] > div:first-child { flex: 1 1 8rem !important; min-width: 0 !important; }
[class*="st-key-tools-"] { margin-top: -0.35rem; align-items: center; }
[class*="st-key-tools-"] button { min-height: 1.9rem; padding-top: 0; padding-bottom: 0; }
[class*="st-key-tools-"]:empty { display: none; }
[class*="st-key-table-"] [data-testid="stPopoverButton"] p { position: absolute; width: 1px; height: 1px;
  overflow: hidden; clip-path: inset(50%); }
[class*="st-key-table-"] [data-testid="stPopoverButton"] > div > div[aria-hidden] { display: none; }
[class*="st-key-table-"] [data-testid="stPopoverButton"] { min-height: 1.7rem; padding: 0 0.3rem; }
[data-testid="stPopoverBody"]:has([class*="st-key-csv-"]) { min-width: 9rem; width: 9.5rem; padding: 0.5rem 0.7rem; }
[data-testid="stPopoverBody"]:has([class*="st-key-csv-"]) [data-testid="stVerticalBlock"] { gap: 0.1rem; }
[data-testid="stPopoverBody"] [class*="st-key-csv-"] { display: flex; flex-direction: column; align-items: flex-start; }
.dynlora-tools { display: flex; flex-direction: column; align-items: flex-start; }
.dynlora-tools button { font: inherit; font-size: 0.88rem; color: inherit; background: none; border: 0;
  border-radius: 6px; padding: 0.35rem 0.4rem 0.35rem 1.5rem; width: 100%; text-align: left; cursor: pointer; }
.dynlora-tools button:hover, .dynlora-tools button:focus-visible { background: rgba(128, 128, 128, 0.15); }
.dynlora-mark { position: absolute; display: none; width: 0; z-index: 2; pointer-events: none; }
.dynlora-mark span { position: absolute; top: 0; font-size: 11px; white-space: nowrap; padding: 0 3px;
  border-radius: 3px; opacity: 0.92; }
.dynlora-full { position: fixed; inset: 0; z-index: 1000000; padding: 1rem 1.5rem; overflow: auto; }
.dynlora-full > div:first-child { display: flex; justify-content: space-between; align-items: center; }
.dynlora-full button { font: inherit; color: inherit; background: none; border: 0; cursor: pointer; }
"""
"""The buttons of charts, and the line that marks a step in them."""

_LIST_STYLES = """@media (min-width: 641px) {
  .st-key-names, [data-testid="stLayoutWrapper"]:has(> .st-key-names) { display: none; }
}
.dl-names p { display: grid; grid-template-columns: 1.1rem 1fr; padding: 0.4rem 0; margin: 0; font-size: 0.9rem; }
.dl-names i { width: 0.65rem; height: 0.65rem; border-radius: 50%; margin-top: 0.4rem; }
.dl-names a { overflow-wrap: anywhere; color: inherit; text-decoration: none; font-weight: 600; }
.dl-names small { grid-column: 2; opacity: 0.75; font-size: 0.8rem; }
.st-key-list-and-panel { align-items: flex-start; }
[data-testid="stLayoutWrapper"]:has(> .st-key-list) { flex: 1 1 24rem !important; min-width: 0; }
[data-testid="stLayoutWrapper"]:has(> .st-key-panel) { flex: 0 1 25rem !important; min-width: min(100%, 20rem); }
[class*="st-key-queue-line-"] { flex-wrap: nowrap !important; }
"""
"""The list of runs, the card of one run beside it, and the lines of the queue."""


def _text_styles(colours: Palette) -> str:
    """Return the styles of texts that a model read or wrote: whole, and as tokens in colour."""
    return f"""
.dl-text pre {{ white-space: pre-wrap; overflow-wrap: anywhere; margin: 0 0 0.6rem; font-size: 0.84rem; }}
.dl-pair {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 14rem), 1fr)); gap: 0 1rem; }}
.dl-text small {{ color: {colours.muted}; }}
.dl-text mark {{ background: {colours.accent}33; color: inherit; }}
.dl-shared {{ width: 100%; border: 1px solid {colours.hairline}; border-radius: 10px; }}
@media (prefers-reduced-motion: reduce) {{ .dl-shared[src^="data:image/gif"] {{ display: none; }} }}
.dl-pale pre {{ color: {colours.muted}; }}
.dl-origin {{ margin: 0; font-size: 0.875rem; overflow-wrap: anywhere; color: {colours.muted}; }}
.dl-origin a {{ color: {colours.accent}; }}
.dl-asked pre {{ border-left: 3px solid {colours.accent}; padding-left: 0.6rem; }}
.dl-tokens p {{ white-space: pre-wrap; overflow-wrap: anywhere; margin: 0 0 0.5rem; font-size: 0.88rem;
  line-height: 1.75; font-family: ui-monospace, monospace; }}
.dl-tokens span {{ border-radius: 3px; padding: 0.1rem 0; box-shadow: inset -1px 0 {colours.panel}; }}
.dl-tokens small, .dl-legend {{ color: {colours.muted}; font-size: 0.78rem; }}
.dl-legend {{ display: flex; flex-wrap: wrap; gap: 0.25rem 0.6rem; align-items: center; }}
.dl-legend b {{ display: inline-flex; border: 1px solid {colours.hairline}; }}
.dl-legend i {{ width: 0.9rem; height: 0.7rem; }}
"""


def _view_styles(colours: Palette) -> str:
    """Return the styles of the menu's entry of a run, and of the row of its views under its name."""
    return f""".st-key-menu-views, [data-testid="stLayoutWrapper"]:has(> .st-key-menu-views) {{ display: none; }}
[class*="st-key-menu-run-"] a p {{ display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2;
  overflow: hidden; white-space: normal; line-height: 1.3; }}
[class*="st-key-menu-run-"] a {{ min-height: 1.75rem; }}
.st-key-menu-run-here a {{ background: {colours.hairline}; }}
.st-key-menu-run-here a p {{ font-weight: 600; }}
@media (min-width: 961px) {{ .st-key-head-of-run > .st-key-address-run {{ flex: 0 0 20rem !important; }} }}
@media (max-width: 960px) {{ .st-key-head-of-run {{ row-gap: 0.4rem; }}
  .st-key-head-of-run > div {{ flex: 1 1 100% !important; min-width: 100% !important; }} }}
[data-testid="stLayoutWrapper"]:has(> [class*="st-key-head-of-"]) {{ margin-bottom: -0.6rem; }}
.st-key-line-of-run {{ border-bottom: 1px solid {colours.hairline}; row-gap: 0.2rem; }}
.st-key-line-of-run > div:first-child {{ flex: 1 1 20rem !important; }}
.st-key-views-of-run {{ flex-wrap: nowrap !important; overflow-x: auto; overflow-y: hidden; column-gap: 1.6rem; }}
[data-testid="stMainBlockContainer"]:has(.st-key-views-of-run) {{ max-width: none; }}
.st-key-conclusion :is([data-testid="stMarkdownContainer"], [data-testid="stCaptionContainer"]) {{ margin-bottom: 0; }}
.st-key-conclusion p {{ font-size: 1.02rem; line-height: 1.35; margin: 0; }}
.st-key-conclusion-next p {{ font-size: 0.84rem; }}
.st-key-conclusion-next a {{ padding: 0; }}
[class*="st-key-view-"] {{ flex: 0 0 auto !important; }}
[class*="st-key-view-"] a {{ padding: 0 0 0.1rem; margin: 0; border-radius: 0; background: none !important; }}
[class*="st-key-view-"] a p {{ color: {colours.muted} !important; }}
[class*="st-key-view-"] a:hover p, [class*="st-key-view-here-"] a p {{ color: {colours.accent} !important; }}
[class*="st-key-view-here-"] {{ box-shadow: inset 0 -2px {colours.accent}; }}
[class*="st-key-view-here-"] a p {{ font-weight: 650; }}
.st-key-card-strip {{ padding: 0.8rem 0 0.5rem; }}
.st-key-card-strip [data-testid="stColumn"] {{ padding: 0 1.1rem; }}
.st-key-card-strip [data-testid="stColumn"] > div {{ gap: 0.2rem; }}
.st-key-card-strip [data-testid="stMarkdownContainer"], .st-key-card-strip [data-testid="stCaptionContainer"],
.st-key-card-strip p {{ margin: 0 !important; }}
.st-key-card-strip h3 {{ padding: 0; font-size: 1.7rem; font-weight: 650; }}
.st-key-card-strip a, .st-key-card-strip [data-testid="stPopover"] button {{ padding: 0; min-height: 1.6rem; }}
.st-key-card-strip a p, .st-key-card-strip [data-testid="stPopover"] button p {{ font-size: 0.84rem; }}
[data-testid="stLayoutWrapper"]:has(> .st-key-copy-code) {{ flex: 0 0 auto !important; width: max-content; }}
.st-key-copy-code pre {{ display: none; }}
.st-key-copy-code [data-testid="stElementContainer"] {{ min-width: 0 !important; width: auto !important; }}
.st-key-copy-code [data-testid="stCode"], .st-key-copy-code [data-testid="stCode"] * {{ position: static;
  background: none; width: auto; min-width: 0; height: auto; padding: 0; transform: none; opacity: 1;
  visibility: visible; box-shadow: none; justify-content: flex-start !important; }}
.st-key-copy-code button {{ padding: 0; border: 0; color: {colours.text}; font-size: 0.84rem; white-space: nowrap;
  text-decoration: underline; text-underline-offset: 3px; }}
.st-key-copy-code button svg {{ width: 0.9rem !important; margin-right: 0.3rem; }}
.st-key-copy-code button::after {{ content: "Copy LoraConfig"; }}
[class*="st-key-actions"] a:not(:hover) {{ background: none; }}
[class*="st-key-actions"] a p {{ font-weight: 400 !important; }}
.st-key-card-strip [data-testid="stButton"] p {{ white-space: normal; }}
@media (min-width: 641px) and (max-width: 960px) {{
  .st-key-card-strip [data-testid="stHorizontalBlock"]:has(> [data-testid="stColumn"]) {{
    display: grid; grid-template-columns: 1fr 1fr; row-gap: 0.8rem !important; }}
  .st-key-card-strip [data-testid="stColumn"] {{ width: auto !important; }}
}}
@media (min-width: 641px) {{
  .st-key-card-strip [data-testid="stColumn"] + [data-testid="stColumn"] {{
    border-left: 1px solid {colours.hairline}; }}
  .st-key-card-strip [data-testid="stHorizontalBlock"]:has(> [data-testid="stColumn"]) {{ gap: 0; }}
}}
"""


def _home_styles(colours: Palette) -> str:
    """Return the styles of the first page's cards and of the sections of the Methods page."""
    return f""".st-key-doors a, .st-key-tour-hint a {{ border: 1px solid {colours.hairline}; border-radius: 8px;
  padding: 0.3rem 0.8rem; white-space: nowrap; }}
.st-key-doors a:hover, .st-key-tour-hint a:hover {{ border-color: {colours.accent}; }}
.st-key-tour-hint {{ background: {colours.panel}; border: 1px solid {colours.hairline};
  border-left: 3px solid {colours.accent}; border-radius: 8px; padding: 0.35rem 0.9rem; }}
[class*="st-key-card-method-"] h3 {{ font-size: 1.02rem; font-weight: 650; padding: 0; }}
[class*="st-key-method-head-"] {{ flex-wrap: nowrap !important; }}
[class*="st-key-method-head-"] > div:first-child {{ flex: 0 0 auto !important; width: auto !important; }}
[class*="st-key-method-head-"] > div:nth-child(2) {{
  flex: 1 1 0 !important; min-width: 0 !important; width: auto !important; }}
[data-testid="stMain"] [data-testid="stPageLink"] a p {{ color: {colours.accent}; }}
.st-key-card-race h4 {{ padding: 0; font-size: 1.2rem; color: {colours.accent}; }}
.st-key-race-next a {{ border: 1px solid {colours.hairline}; border-radius: 8px; padding: 0.3rem 0.8rem; }}
@media (prefers-reduced-motion: no-preference) {{
  .st-key-card-race .scatterlayer {{ animation: dynlora-race 6s linear; }} }}
@keyframes dynlora-race {{ from {{ clip-path: inset(-5px 100% -5px 0); }} to {{ clip-path: inset(-5px 0 -5px 0); }} }}
[class*="st-key-conclusion-next"] a,
[class*="st-key-card-"] > div > [data-testid="stPageLink"] a {{ padding-left: 0; }}
[class*="st-key-card-"] [data-testid="stPageLink"] a:not(:hover) {{ background: none; }}
[data-testid="stSidebar"] [data-testid="stPageLink"] .stMarkdownBadge {{ padding: 0 0.35rem; line-height: 1.2; }}
[class*="st-key-run-line-"] {{ row-gap: 0 !important; }}
[class*="st-key-run-line-"] a {{ padding: 0.25rem 0 0; }}
[class*="st-key-run-line-"] a p {{ white-space: normal; }}
[class*="st-key-run-line-"] > div {{ flex: 1 0 100% !important; }}
[class*="st-key-run-line-"] a p, .st-key-doors a p, .st-key-tour-hint a p {{ color: {colours.accent}; }}
"""
