(() => {
  // Runs before the first paint, so that the page never flashes in the other theme.
  let kept = null;
  try { kept = localStorage.getItem("mmtrace-theme"); } catch { /* file: without storage */ }
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = kept || (dark ? "dark" : "light");
  document.documentElement.classList.add("js");
})();
