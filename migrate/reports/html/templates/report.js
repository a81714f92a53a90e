"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // A list that would fill a narrow screen is folded there.
  const wide = matchMedia("(min-width: 64rem)");
  const fit = () => {
    for (const one of all("details[data-wide]")) one.open = wide.matches;
  };
  wide.addEventListener("change", fit);
  if (!wide.matches) fit();

  // What a link leads to may lie in something folded.
  const reveal = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let at = target.parentElement; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    if (target.tagName === "DETAILS") target.open = true;
    target.hidden = false;
    target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  reveal();

  // On paper nothing can be unfolded.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = all("details:not([open])");
    for (const one of folded) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of folded) one.open = false;
  });

  for (const button of all("button[data-unfold]")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const inside = all("details", document.getElementById(button.dataset.unfold));
      const open = inside.some((one) => !one.open);
      for (const one of inside) one.open = open;
      button.textContent = open ? "Fold all" : "Unfold all";
    });
  }

  for (const form of all("form.filter")) {
    const rows = all("tbody tr", document.getElementById(form.dataset.table));
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const [words, kind, found, told] = ["words", "kind", "found", "told"].map((name) => form.elements.namedItem(name));
    const narrow = () => {
      const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, at) => {
        const fits =
          wanted.every((word) => texts[at].includes(word)) &&
          (!kind.value || row.dataset.kind === kind.value) &&
          (!found.checked || row.classList.contains("found"));
        row.hidden = !fits;
        shown += fits;
      });
      told.value = shown + " of " + rows.length + " rows";
    };
    for (const event of ["input", "change"]) form.addEventListener(event, narrow);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.hidden = false;
    narrow();
  }
})();
