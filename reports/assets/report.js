(() => {
  "use strict";
  const root = document.documentElement;
  const source = document.getElementById("figures").textContent;
  const twins = JSON.parse(source).dark;
  const chosen = {};
  const PRINT_WIDTH = 680;
  const CONFIG = {
    responsive: true,
    displaylogo: false,
    showSendToCloud: false,
    scrollZoom: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    toImageButtonOptions: { format: "svg", scale: 1 },
  };

  // Figures carry the light colours; each has one dark twin, found by its text.
  const themed = () => {
    const dark = root.dataset.theme === "dark";
    const text = dark ? source.replace(/#[0-9a-f]{6}/g, (c) => twins[c] || c) : source;
    return JSON.parse(text).figures;
  };

  const draw = (id, variants, width) => {
    const plot = document.getElementById("plot-" + id);
    if (!plot) return Promise.resolve();
    const names = Object.keys(variants);
    const spec = variants[chosen[id] in variants ? chosen[id] : names[0]];
    const layout = { ...spec.layout };
    if (width) layout.width = width;
    if ((width || plot.clientWidth) < 520) {
      layout.font = { ...layout.font, size: 11 };
      layout.margin = { ...layout.margin, l: 4, r: 22 };
      // Names of steps start with their number, which the table explains.
      for (const name of Object.keys(layout).filter((n) => /^xaxis\d*$/.test(n))) {
        const ticks = layout[name].ticktext;
        if (ticks) layout[name] = { ...layout[name], ticktext: ticks.map((t) => t.split(" ")[0]) };
      }
    }
    plot.style.minHeight = layout.height + "px";
    return Plotly.react(plot, spec.data, layout, CONFIG);
  };

  const drawAll = async (width) => {
    const figures = themed();
    for (const id of Object.keys(figures)) await draw(id, figures[id], width);
    root.dataset.figures = "ready";
  };

  const label = (button) => {
    const dark = root.dataset.theme === "dark";
    button.textContent = dark ? "Light theme" : "Dark theme";
    button.setAttribute("aria-pressed", String(dark));
  };
  const toggle = document.getElementById("theme");
  const setTheme = (name) => {
    root.dataset.theme = name;
    label(toggle);
    return drawAll();
  };
  toggle.addEventListener("click", () => {
    const name = root.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("mmtrace-theme", name); } catch { /* not kept */ }
    setTheme(name);
  });
  label(toggle);

  for (const select of document.querySelectorAll("select[data-figure]")) {
    select.addEventListener("change", () => {
      chosen[select.dataset.figure] = select.value;
      draw(select.dataset.figure, themed()[select.dataset.figure]);
    });
  }

  const said = (button, text) => {
    const before = button.dataset.label || (button.dataset.label = button.textContent);
    button.textContent = text;
    setTimeout(() => { button.textContent = before; }, 1600);
  };
  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch { /* not a secure context: the old way */ }
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  };
  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.addEventListener("click", async () => {
      const text = document.getElementById(button.dataset.copy).textContent;
      said(button, (await copy(text)) ? "Copied" : "Select and copy by hand");
    });
  }

  const quoted = (text) => (/[",\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text);
  for (const button of document.querySelectorAll("button[data-csv]")) {
    button.addEventListener("click", () => {
      const rows = [...document.getElementById(button.dataset.csv).rows];
      const lines = rows.map((row) => [...row.cells].map((c) => quoted(c.dataset.value || c.textContent.trim())).join(","));
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
      link.download = button.dataset.csv + ".csv";
      link.click();
      URL.revokeObjectURL(link.href);
    });
  }

  // Paper is white, has no hover, and cannot be opened; long tables stay in the file.
  const LONG = 24;
  const printed = (part) => part.querySelectorAll("tr").length <= LONG;
  let before = null;
  addEventListener("beforeprint", () => {
    const closed = [...document.querySelectorAll("details:not([open])")].filter(printed);
    before = { theme: root.dataset.theme, closed };
    for (const part of before.closed) part.open = true;
    root.dataset.theme = "light";
    drawAll(PRINT_WIDTH);
  });
  addEventListener("afterprint", () => {
    if (!before) return;
    for (const part of before.closed) part.open = false;
    setTheme(before.theme);
    before = null;
  });

  drawAll();
})();
