// The answers of the models: one case at a time, before editing and at each edit count.
const fillCases = () => {
  const choice = document.getElementById("case"), slider = document.getElementById("count");
  data.cases.forEach((one, index) => {
    const prompt = one.probes[0]?.prompt ?? "", few = prompt.length > 60 ? `${prompt.slice(0, 59)}…` : prompt;
    choice.append(element("option", { value: index }, `Edit ${count(one.number)}: ${few}`));
  });
  slider.max = data.edit_counts.length - 1;
  slider.value = slider.max;
  const step = (by) => { slider.value = Number(slider.value) + by; drawCase(); }; // the slider keeps it within its bounds
  document.getElementById("fewer").onclick = () => step(-1);
  document.getElementById("more").onclick = () => step(1);
  choice.onchange = slider.oninput = drawCase;
};

const drawCase = () => {
  const one = data.cases[Number(document.getElementById("case").value)], slider = document.getElementById("count");
  const now = data.edit_counts[Number(slider.value)], said = now === 0 ? "before editing" : `after ${edits(now)}`;
  document.getElementById("count-name").textContent = said;
  slider.setAttribute("aria-valuetext", said);
  const cards = one.probes.map((probe) => {
    const card = element("article", { class: "case" });
    card.append(element("h3", {}, probe.title), element("p", { class: "prompt" }, probe.prompt));
    if (probe.target) card.append(element("p", { class: "target" }, `${probe.title === "Another fact" ? "Answer given" : "New fact"}: ${probe.target}`));
    const list = element("dl");
    if (now === 0 || !data.lines.some((_, line) => !state.hidden.has(line))) list.append(...answer("Pristine model", null, probe.before, "not asked"));
    else
      data.lines.forEach((line, index) => {
        if (state.hidden.has(index)) return;
        const why = (one.edited[index] ?? one.number) > now ? "not edited yet" : "not asked";
        list.append(...answer(line.name, index, probe.after[index]?.[now], why));
      });
    card.append(list);
    return card;
  });
  document.querySelector("#cases .cards").replaceChildren(...cards);
};

const answer = (name, line, said, why) => {
  const term = element("dt", {}, name), text = element("dd");
  if (line !== null) term.style.setProperty("--color", color(line));
  if (!said) text.append(element("em", {}, why));
  else {
    const [words, isRight] = said;
    text.append(words ? element("span", {}, words) : element("em", {}, "empty"));
    if (isRight !== null) text.append(" ", element("span", { class: isRight ? "right" : "wrong", title: isRight ? "right" : "wrong" }, isRight ? "✓" : "✗"));
  }
  return [term, text];
};
