// Runs in a gr.HTML component with `element` and `trigger`: its buttons do what their data-do says.
const EVENTS = ["edit", "retry", "undo", "example", "keep"];

async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // only pages from this machine or over https may
    const area = Object.assign(document.createElement("textarea"), {value: text});
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

window.copyConversation = () => {
  const said = [...document.querySelectorAll("#talk [data-who]")].map(part => {
    const pictures = part.querySelectorAll("img").length;
    const seen = pictures ? ` [${pictures} picture${pictures > 1 ? "s" : ""}]` : "";
    return `${part.dataset.who}${seen}: ${part.querySelector("p").textContent}`;
  });
  toClipboard(said.join("\n\n"));
};

window.saveFile = ({name, type, text}) => {
  const url = URL.createObjectURL(new Blob([text], {type}));
  Object.assign(document.createElement("a"), {href: url, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
};

element.addEventListener("click", ({target}) => {
  const button = target.closest("[data-do]");
  if (!button) return;
  if (button.dataset.do === "copy") {
    toClipboard(button.closest(".turn").querySelector(".answer p").textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  } else if (EVENTS.includes(button.dataset.do)) {
    trigger(button.dataset.do, {number: Number(button.dataset.number)});
    // The button may go away. On a phone the focus would open the keyboard.
    if (matchMedia("(hover: hover)").matches) document.querySelector("#box textarea").focus();
  }
});

if (element.closest("#conversation")) {
  const area = document.querySelector("#conversation");
  let atEnd = true;
  area.addEventListener("scroll", () => {
    atEnd = area.scrollHeight - area.scrollTop - area.clientHeight < 80;
  });
  const follow = () => { if (atEnd) area.scrollTop = area.scrollHeight; };
  new MutationObserver(follow).observe(area, {childList: true, subtree: true, characterData: true});
  new ResizeObserver(follow).observe(area);
  const label = () => {  // Gradio gives the box no name, and may place it later
    const box = document.querySelector("#box textarea");
    box ? box.setAttribute("aria-label", "Question") : setTimeout(label, 100);
  };
  label();
}
