// What a test asks a page: each function returns what is wrong, in words, and nothing where all is well.
const looks = (() => {
  const isShown = (element) => element.getClientRects().length > 0 && element.checkVisibility({ visibilityProperty: true });
  const named = (element) => `${element.tagName}.${element.className.baseVal ?? element.className} "${element.textContent.slice(0, 50)}"`;
  const texts = () => {
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
    while (walker.nextNode()) {
      const node = walker.currentNode, element = node.parentElement;
      if (node.textContent.trim() && isShown(element) && !element.closest("script, style, caption, .skip")) found.push([node, element]);
    }
    return found;
  };
  const box = (node) => { const range = document.createRange(); range.selectNodeContents(node); return range.getBoundingClientRect(); };

  const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
  const luminance = (colour) => {
    const [r, g, b] = channels(colour).slice(0, 3).map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (one, other) => {
    const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  };
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = getComputedStyle(each).backgroundColor, alpha = channels(colour)[3];
      if (alpha === undefined || alpha === 1) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const resolved = (colour) => {  // light-dark() and currentColor come out as rgb()
    if (!/^(rgb|color)/.test(colour)) throw new Error(`what colour is ${colour}?`);
    return colour;
  };

  return {
    overflow: () => {
      const page = document.scrollingElement;
      return page.scrollWidth <= innerWidth ? [] : [`${page.scrollWidth} px of ${innerWidth}`];
    },

    pictures: () => [...document.querySelectorAll(".plot")].filter((plot) => [...plot.children].filter((c) => c.tagName === "svg" && isShown(c)).length !== 1).map(named),

    // Text outside of its picture, or of the page, or of an element that hides what has no room.
    cut: () => {
      const wrong = [];
      for (const [node, element] of texts()) {
        const place = box(node), svg = element.closest("svg"), frame = element.closest(".scroll");
        const edge = svg ? svg.getBoundingClientRect() : { left: 0, right: innerWidth, top: -Infinity, bottom: Infinity };
        if (frame && !svg) {
          const cell = element.closest("th, td").getBoundingClientRect();
          if (place.left < cell.left - 1 || place.right > cell.right + 1) wrong.push(`cell: ${named(element)}`);
        } else if (place.left < edge.left - 1 || place.right > edge.right + 1 || place.top < edge.top - 3 || place.bottom > edge.bottom + 3) {
          wrong.push(`${named(element)} ${JSON.stringify(place)} in ${JSON.stringify(edge)}`);
        }
      }
      return wrong;
    },

    // Two texts of a picture upon each other.
    covered: () => {
      const wrong = [];
      for (const svg of [...document.querySelectorAll(".plot > svg")].filter(isShown)) {
        const places = [...svg.querySelectorAll("text")].map((text) => [text, text.getBoundingClientRect()]);
        places.forEach(([one, a], k) => places.slice(k + 1).forEach(([other, b]) => {
          const across = Math.min(a.right, b.right) - Math.max(a.left, b.left), down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
          if (across > 1 && down > 4) wrong.push(`${named(one)} and ${named(other)}`);
        }));
      }
      return wrong;
    },

    small: () => texts().filter(([node, element]) => {
      const svg = element.closest("svg");
      const scale = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
      return parseFloat(getComputedStyle(element).fontSize) * scale < 9;
    }).map(([, element]) => named(element)),

    faint: () => {
      const wrong = [];
      for (const [, element] of texts()) {
        const style = getComputedStyle(element);
        const ratio = contrast(resolved(element.closest("svg") ? style.fill : style.color), ground(element));
        if (ratio < 4.5) wrong.push(`${ratio.toFixed(2)} ${named(element)}`);
      }
      for (const line of [...document.querySelectorAll(".plot .line, .plot .dot")].filter(isShown)) {
        const style = getComputedStyle(line), ratio = contrast(resolved(line.matches(".line") ? style.stroke : style.fill), ground(line.closest("figure")));
        if (ratio < 3) wrong.push(`${ratio.toFixed(2)} ${line.parentElement.className.baseVal}`);
      }
      return wrong;
    },

    // What a frame hides behind its edge.
    hidden: () => [...document.querySelectorAll(".scroll")].filter((frame) => !isShown(frame) || frame.scrollWidth > frame.clientWidth + 1 || frame.scrollHeight > frame.clientHeight + 1).map(named),

    interactive: () => [...document.querySelectorAll("a, button, summary, .plot, .scroll")].filter((e) => isShown(e) || e.matches(".skip")),
    unreachable: () => looks.interactive().filter((element) => element.tabIndex < 0).map(named),
    outlined: () => {
      const style = getComputedStyle(document.activeElement);
      return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2 && contrast(resolved(style.outlineColor), ground(document.activeElement.parentElement)) >= 3;
    },
    focused: () => looks.interactive().indexOf(document.activeElement),
    named,
  };
})();
