/* Show the results of one data set, at first the first one, or of all. */
for (const filter of document.querySelectorAll(".results-filter")) {
  const select = filter.querySelector("select");
  const blocks = filter.closest(".results").querySelectorAll("[data-sets]");
  const show = () => {
    for (const block of blocks) {
      const names = block.dataset.sets.split(" ");
      block.hidden = select.value !== "" && !names.includes(select.value);
    }
  };
  select.addEventListener("change", show);
  // Browsers restore the choice when a page is visited again.
  window.addEventListener("pageshow", show);
  filter.hidden = false;
  show();
}
