// Runs in a gr.HTML component with `element` and `trigger`: its buttons trigger the event that their data-action names.
const EVENTS = ["edit", "retry", "undo", "example", "keep"];

async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // Browsers allow the clipboard to pages from this machine or over https only.
    const area = Object.assign(document.createElement("textarea"), {value: text});
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

window.copyConversation = () => {
  const messages = [...document.querySelectorAll("#turns [data-who]")].map(message => {
    const images = message.querySelectorAll("img").length;
    const note = images ? ` [${images} image${images > 1 ? "s" : ""}]` : "";
    return `${message.dataset.who}${note}: ${message.querySelector("p").textContent}`;
  });
  toClipboard(messages.join("\n\n"));
};

window.saveFile = ({name, type, text}) => {
  const url = URL.createObjectURL(new Blob([text], {type}));
  Object.assign(document.createElement("a"), {href: url, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
};

element.addEventListener("click", ({target}) => {
  const button = target.closest("[data-action]");
  if (!button) return;
  if (button.dataset.action === "copy") {
    toClipboard(button.closest(".turn").querySelector(".answer p").textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  } else if (EVENTS.includes(button.dataset.action)) {
    trigger(button.dataset.action, {index: Number(button.dataset.index)});
    // The button may disappear, and the focus with it. On a phone the focus would open the keyboard.
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
  const label = () => {  // Gradio does not label the box, and may add it later.
    const box = document.querySelector("#box textarea");
    box ? box.setAttribute("aria-label", "Question") : setTimeout(label, 100);
  };
  label();
}
