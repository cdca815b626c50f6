/** How many ratings a study needs, for a margin and a power to try out. */

import { card, make } from "./dom.js";

/** A card that asks `ask(path)`, which fetches; `margin` is the study's, as a share. */
export function planner(margin, ask) {
  const number = (value, min, max, step) =>
    make("input", { type: "number", value, min, max, step, on: { input: update } });
  const fields = {
    margin: number(100 * margin, 0.2, 49, 0.1),
    power: number(90, 50, 99, 1),
    design_effect: number(1, 1, 50, 0.1),
  };
  const labels = { margin: "Margin, points", power: "Power, %", design_effect: "Design effect" };
  const answer = make("div", { role: "status" });
  let latest = 0;

  async function update() {
    const mine = (latest += 1);
    const [points, percent, effect] = Object.values(fields).map((field) => Number(field.value));
    const query = new URLSearchParams({ margin: points / 100, power: percent / 100, design_effect: effect });
    const parts = await ask(`planner?${query}`).then(
      async (response) => told(await response.json(), points, percent),
      (error) => [error.message],
    );
    if (mine === latest) answer.replaceChildren(...parts);
  }

  update();
  const inputs = Object.entries(fields).map(([name, field]) => make("label", { class: "field" }, labels[name], field));
  const note = "Ratings of one listener, and of one clip, are alike: the design effect says how many more that takes.";
  const section = card(
    "How many ratings?",
    make("div", { class: "inputs" }, inputs),
    answer,
    make("p", { class: "note" }, note),
  );
  section.id = "planner";
  return section;
}

function told(plan, points, percent) {
  const count = (value) => make("b", {}, value.toLocaleString("en"));
  const power = `${(100 * plan.exact_power).toFixed(1)} %`;
  return [
    make("p", {}, count(plan.ratings), ` ratings show a rate of 50 % to lie within ± ${points} points of it.`),
    make("p", {}, `The exact test then has a power of ${power}; `, count(plan.ratings_exact), ` make it ${percent} %.`),
    make("p", {}, count(plan.ratings_interval), " ratings make a 95 % interval of that half-width."),
  ];
}
