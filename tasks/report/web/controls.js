// Groups of buttons, of which one is pressed.
const press = (buttons, pressed) => { for (const one of buttons) one.setAttribute("aria-pressed", one === pressed); };

const button = (parent, name, isPressed, onPress) => {
  const made = element("button", { type: "button", ...(isPressed === null ? {} : { "aria-pressed": isPressed }) }, name);
  made.onclick = () => { onPress(made); redraw(); };
  parent.append(made);
  return made;
};

const choices = (id, name, options, chosen, onChoice) => {
  const group = document.getElementById(id);
  group.append(element("span", { class: "name" }, name));
  const buttons = options.map(([value, text]) => button(group, text, value === chosen, (made) => { onChoice(value); press(buttons, made); }));
  return buttons;
};
