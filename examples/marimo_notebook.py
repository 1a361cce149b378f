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
        ["20261127-144657-74ce2b75", "20261127-145425-87d2856b", "20261130-014133-c29ab26e"],
        ["20261127-144833-de79b354", "20261127-150149-eac49b84", "20261130-014133-886d825e"],
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
