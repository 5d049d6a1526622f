// Bundled with Vega by worker/charts.py. Draws each specification into the element that has its name.
const specs = JSON.parse(document.getElementById("specs").textContent);
const look = {renderer: "svg", actions: false, defaultStyle: false};
Promise.all(Object.entries(specs).map(([name, spec]) => vegaEmbed(document.getElementById(name), spec, look)))
  .then(() => { document.documentElement.dataset.drawn = "yes"; });
