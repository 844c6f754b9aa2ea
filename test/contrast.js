// What a reader with weak eyes or a screen reader would stumble over, as data for the test.
const channel = value => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
// Any CSS colour as red, green, blue, and alpha from 0 to 1.
const rgba = colour => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
  return [r, g, b, a / 255];
};
const over = ([r, g, b, a], under) => [r, g, b].map((value, k) => value * a + under[k] * (1 - a));
const background = element => {
  if (!element) return [255, 255, 255];
  const own = rgba(getComputedStyle(element).backgroundColor);
  return own[3] >= 1 ? own.slice(0, 3) : over(own, background(element.parentElement));
};
const texts = [];
let checked = 0;
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.textContent.trim() || !element.checkVisibility()) continue;
  if (element.closest("script, style, option")) continue;
  const style = getComputedStyle(element), inSvg = element.closest("svg");
  const under = background(inSvg ? inSvg.parentElement : element);
  const ink = over(rgba(inSvg ? style.fill : style.color), under);
  // Inside a plot letters may stand on bars; only those on the paper are judged.
  if (inSvg && style.fill === "rgb(255, 255, 255)") continue;
  const [high, low] = [light(ink), light(under)].sort((a, b) => b - a);
  const size = parseFloat(style.fontSize), bold = Number(style.fontWeight) >= 700;
  const ratio = (high + 0.05) / (low + 0.05);
  checked += 1;
  texts.push({ text: walker.currentNode.textContent.trim().slice(0, 40), ratio, large: size >= 24 || (bold && size >= 18.66) });
}
const named = element => element.getAttribute("aria-label") || element.getAttribute("alt")
  || element.textContent.trim() || (element.labels && element.labels.length);
const nameless = Array.from(document.querySelectorAll("button, a, select, input, img, [role=img]"))
  .filter(element => !named(element)).map(element => element.outerHTML.slice(0, 120));
return { texts, checked, nameless };
