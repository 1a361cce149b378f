"""The figures of dynlora in marimo, on the sample runs: `marimo edit examples/marimo_notebook.py`."""

import marimo

app = marimo.App(width="medium")


@app.cell
def _():
    from pathlib import Path

    import marimo as mo

    import dynlora

    runs_dir = Path(__file__).resolve().parents[1] / "sample_runs"  # your own are in runs/
    theme = "dark" if mo.app_meta().theme == "dark" else "light"
    return dynlora, mo, runs_dir, theme


@app.cell
def _(dynlora, runs_dir):
    lora, dynamic = (
        ["20261205-144905-03e6ddf3", "20261205-145331-76f7cc1b", "20261205-145817-12f40aea"],
        ["20261205-145115-dab7e702", "20261205-145549-b378afa4", "20261205-150014-7699b340"],
    )
    comparison = dynlora.compare([*lora, *dynamic], runs_dir)
    comparison
    return comparison, dynamic, lora


@app.cell
def _(comparison, theme):
    comparison.plot(theme).differences()
    return


@app.cell
def _(dynamic, lora, mo):
    names = {"dynamic": dynamic[0], "lora": lora[0]}
    chosen = mo.ui.dropdown(names, value="dynamic", label="Run")
    chosen
    return (chosen,)


@app.cell
def _(chosen, dynlora, runs_dir, theme):
    run = dynlora.open_run(runs_dir / chosen.value)
    plot = run.plot(theme)
    run
    return plot, run


@app.cell
def _(mo, run):
    steps = mo.ui.range_slider(0, run.summary["step"], value=[0, run.summary["step"]], label="Steps", show_value=True)
    steps
    return (steps,)


@app.cell
def _(mo, plot, steps):
    first, last = steps.value
    capacity = plot.capacity(start=first, stop=last)
    mo.vstack([capacity, capacity.caption])
    return first, last


@app.cell
def _(first, last, plot):
    plot.replay(first, last)
    return


@app.cell
def _(plot):
    plot.training()
    return


if __name__ == "__main__":
    app.run()
