// The map of a report: points on a canvas, coloured by cluster, label, confidence or a feature. No library, no network.
(() => {
  const root = document.getElementById("map");
  if (!root) return;
  const data = JSON.parse(document.getElementById("map-data").textContent);
  const part = name => root.querySelector(`[data-map=${name}]`);
  const canvas = part("canvas"), pen = canvas.getContext("2d"), tip = part("tip"), said = part("said");
  const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
  const words = text => new Uint16Array(bytes(text).buffer);
  const n = data.n, colours = data.colours, SIDE = 64;
  const rows = data.rows && new Uint32Array(bytes(data.rows).buffer), thumbnails = data.thumbnails, small = thumbnails && words(thumbnails.of);
  const id = i => data.ids ? data.ids[i] : String(rows ? rows[i] : i); // without ids rows have their numbers
  const layouts = data.layouts.map(each => ({name: each.name, xy: words(each.xy)}));
  const channels = data.channels.map(each => ({...each, values: each.kind === "group" ? words(each.values) : bytes(each.values)}));
  const groups = channels.filter(each => each.kind === "group");
  const hidden = new Map(groups.map(each => [each, new Set()]));
  let layout, channel, legend = groups[0], batches, cells, chosen = null, hovered = -1, found = -1, path = null, drawing = false;
  const view = {x: 0, y: 0, scale: 1}; // the place at the middle and pixels a unit; units: 0 to 1
  let width = 0, height = 0;

  const ramp = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
  const shade = t => {
    const at = Math.min(3.999, t * 4), i = Math.floor(at), f = at - i;
    return `rgb(${ramp[i].map((v, j) => Math.round(v + f * (ramp[i + 1][j] - v))).join(",")})`;
  };
  const colour = (each, i) => each.kind === "group" ? colours[each.values[i] % colours.length] : shade((each.values[i] >> 3) / 31);
  const text = (each, i) => each.kind === "group" ? each.names[each.values[i]]
    : Number((each.low + each.values[i] / 255 * (each.high - each.low)).toPrecision(3));
  const shown = i => groups.every(each => !hidden.get(each).size || !hidden.get(each).has(each.values[i]));
  const place = i => [width / 2 + (layout.xy[2 * i] / 65535 - view.x) * view.scale, height / 2 + (layout.xy[2 * i + 1] / 65535 - view.y) * view.scale];
  const unplace = (x, y) => [view.x + (x - width / 2) / view.scale, view.y + (y - height / 2) / view.scale];

  function batch() { // points by colour, so that a colour is set once
    const by = new Map();
    for (let i = 0; i < n; i++) if (shown(i)) {
      const key = colour(channel, i);
      if (!by.has(key)) by.set(key, []);
      by.get(key).push(i);
    }
    batches = [...by];
    cells = Array.from({length: SIDE * SIDE}, () => []);
    for (const [, rows] of batches) for (const i of rows) cells[cell(layout.xy[2 * i]) + SIDE * cell(layout.xy[2 * i + 1])].push(i);
  }
  const cell = v => Math.min(SIDE - 1, v * SIDE >> 16);

  function home() {
    let right = 1, low = 1;
    for (let i = 0; i < n; i++) { right = Math.max(right, layout.xy[2 * i]); low = Math.max(low, layout.xy[2 * i + 1]); }
    [view.x, view.y] = [right / 131070, low / 131070];
    view.scale = 0.92 * Math.min(width / (right / 65535), height / (low / 65535));
  }

  let waiting = false;
  const draw = () => { if (!waiting) { waiting = true; requestAnimationFrame(paint); } };
  function paint() {
    waiting = false;
    const ratio = devicePixelRatio || 1, r = Math.max(1.1, Math.min(6, 2.2 * Math.sqrt(view.scale / Math.min(width, height)) * Math.min(1.6, Math.sqrt(4000 / n) + .5)));
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    n > 8000 ? pixels(r * ratio) : circles(r);
    pen.globalAlpha = 1;
    const ink = getComputedStyle(root).color, back = getComputedStyle(document.body).backgroundColor;
    if (channel.kind === "group") names(ink, back);
    for (const [i, size] of [[hovered, 4], [found, 8]]) if (i >= 0) {
      const [x, y] = place(i);
      pen.strokeStyle = ink; pen.lineWidth = 2;
      pen.beginPath(); pen.arc(x, y, r + size, 0, 6.2832); pen.stroke();
    }
    if (path) {
      pen.strokeStyle = ink; pen.lineWidth = 1.5; pen.setLineDash([5, 4]);
      pen.beginPath(); path.forEach(([x, y], i) => i ? pen.lineTo(x, y) : pen.moveTo(x, y)); pen.stroke(); pen.setLineDash([]);
    }
  }

  function circles(r) {
    const dots = (rows, test) => {
      pen.beginPath();
      for (const i of rows) {
        if (test && !test(i)) continue;
        const [x, y] = place(i);
        pen.moveTo(x + r, y); pen.arc(x, y, r, 0, 6.2832);
      }
      pen.fill();
    };
    for (const [key, rows] of batches) {
      pen.fillStyle = key;
      pen.globalAlpha = chosen ? .12 : .8;
      dots(rows);
      if (chosen) { pen.globalAlpha = .95; dots(rows, i => chosen[i]); }
    }
  }

  function pixels(r) { // many points: written straight into the picture
    const ratio = devicePixelRatio || 1, W = canvas.width, H = canvas.height, image = pen.createImageData(W, H);
    const buffer = new Uint32Array(image.data.buffer), side = Math.max(2, Math.round(2 * r)), half = side >> 1;
    const scale = view.scale * ratio / 65535, left = W / 2 - view.x * view.scale * ratio, top = H / 2 - view.y * view.scale * ratio;
    for (const bright of chosen ? [0, 1] : [1]) for (const [key, rows] of batches) {
      const [red, green, blue] = key[0] === "#" ? [1, 3, 5].map(at => parseInt(key.slice(at, at + 2), 16)) : key.match(/\d+/g).map(Number);
      const word = ((bright ? 220 : 40) << 24 | blue << 16 | green << 8 | red) >>> 0;
      for (const i of rows) {
        if (chosen && chosen[i] !== bright) continue;
        const x = Math.round(left + layout.xy[2 * i] * scale) - half, y = Math.round(top + layout.xy[2 * i + 1] * scale) - half;
        if (x < 0 || y < 0 || x + side > W || y + side > H) continue;
        for (let b = 0, at = y * W + x; b < side; b++, at += W) buffer.fill(word, at, at + side);
      }
    }
    pen.putImageData(image, 0, 0);
  }

  function names(ink, back) { // at a member in the middle of its group
    pen.font = "600 13px system-ui, sans-serif"; pen.textAlign = "center"; pen.textBaseline = "middle"; pen.lineWidth = 4; pen.lineJoin = "round";
    for (const [g, i] of middles()) {
      const [x, y] = place(i);
      pen.strokeStyle = back; pen.strokeText(channel.names[g], x, y);
      pen.fillStyle = ink; pen.fillText(channel.names[g], x, y);
    }
  }
  const kept = new Map();
  function middles() {
    const key = layout.name + channel.name;
    if (!kept.has(key)) {
      const by = channel.names.map(() => []);
      for (let i = 0; i < n; i++) by[channel.values[i]].push(i);
      kept.set(key, by.map((rows, g) => {
        const mid = axis => rows.map(i => layout.xy[2 * i + axis]).sort((a, b) => a - b)[rows.length >> 1];
        const mx = mid(0), my = mid(1), far = i => Math.hypot(layout.xy[2 * i] - mx, layout.xy[2 * i + 1] - my);
        return [g, rows.reduce((best, i) => far(i) < far(best) ? i : best, rows[0])];
      }));
    }
    return kept.get(key).filter(([g]) => channel.names.length <= 60 && !hidden.get(channel).has(g));
  }

  function nearest(x, y) {
    const [u, v] = unplace(x, y), reach = 12 / view.scale;
    let best = -1, least = 144;
    const from = w => Math.max(0, Math.floor((w - reach) * SIDE)), to = w => Math.min(SIDE - 1, Math.floor((w + reach) * SIDE));
    for (let b = from(v); b <= to(v); b++) for (let a = from(u); a <= to(u); a++) for (const i of cells[a + SIDE * b]) {
      const [px, py] = place(i), d = (px - x) ** 2 + (py - y) ** 2;
      if (d < least) { least = d; best = i; }
    }
    return best;
  }
  const sheet = new Image();
  if (thumbnails) sheet.src = thumbnails.source;
  function thumbnail(number) {
    const shown = document.createElement("canvas"), {across} = thumbnails, side = sheet.naturalWidth / across;
    shown.className = "thumbnail";
    shown.width = shown.height = side;
    if (side) shown.getContext("2d").drawImage(sheet, number % across * side, Math.floor(number / across) * side, side, side, 0, 0, side, side);
    return shown;
  }
  function hover(i) {
    hovered = i;
    tip.hidden = i < 0;
    if (i >= 0) {
      tip.textContent = [id(i), ...new Set([...groups, channel, ...channels.filter(each => each.name === "confidence")])]
        .map(each => typeof each === "string" ? each : `${each.name} ${text(each, i)}`).join("\n");
      if (small && small[i] < 65535) tip.prepend(thumbnail(small[i]));
      const [x, y] = place(i);
      tip.style.left = `${Math.max(0, Math.min(width - tip.offsetWidth, x + 12))}px`;
      tip.style.top = `${Math.max(0, y + 16 + tip.offsetHeight > height ? y - tip.offsetHeight - 12 : y + 14)}px`;
    }
    draw();
  }

  function zoom(factor, x = width / 2, y = height / 2) {
    const [u, v] = unplace(x, y);
    view.scale = Math.max(50, Math.min(3e5, view.scale * factor));
    view.x = u - (x - width / 2) / view.scale; view.y = v - (y - height / 2) / view.scale;
    draw();
  }
  const pan = (dx, dy) => { view.x -= dx / view.scale; view.y -= dy / view.scale; draw(); };

  function select() {
    const inside = (x, y) => {
      let odd = false;
      for (let i = 0, j = path.length - 1; i < path.length; j = i++) {
        const [ax, ay] = path[i], [bx, by] = path[j];
        if ((ay > y) !== (by > y) && x < (bx - ax) * (y - ay) / (by - ay) + ax) odd = !odd;
      }
      return odd;
    };
    const marks = new Uint8Array(n), ids = [];
    for (const [, rows] of batches) for (const i of rows) if (inside(...place(i))) { marks[i] = 1; ids.push(id(i)); }
    chosen = ids.length ? marks : null;
    part("chosen").hidden = !ids.length;
    part("ids").value = ids.join("\n");
    said.textContent = ids.length ? `${ids.length} rows in the lasso` : "no row in the lasso";
  }
  function lasso(on) {
    drawing = on;
    part("lasso").setAttribute("aria-pressed", on);
    canvas.style.touchAction = on ? "none" : "pan-y";
    canvas.style.cursor = on ? "crosshair" : "grab";
  }
  function forget() {
    chosen = null; path = null; found = -1; part("chosen").hidden = true; part("search").value = ""; said.textContent = "";
    lasso(false); hover(-1);
  }

  const down = new Map();
  const at = event => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  canvas.addEventListener("pointerdown", event => {
    try { canvas.setPointerCapture(event.pointerId); } catch { /* a pointer that has gone */ }
    down.set(event.pointerId, at(event));
    if (drawing || event.shiftKey) path = [at(event)];
  });
  canvas.addEventListener("pointermove", event => {
    const [x, y] = at(event), before = down.get(event.pointerId);
    if (!before) return hover(nearest(x, y));
    if (path) { path.push([x, y]); return draw(); }
    if (down.size === 2) {
      const other = [...down].find(([id]) => id !== event.pointerId)[1];
      const far = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
      zoom(far([x, y], other) / Math.max(1, far(before, other)), other[0], other[1]);
    } else pan(x - before[0], y - before[1]);
    down.set(event.pointerId, [x, y]);
  });
  const up = event => {
    down.delete(event.pointerId);
    if (path) { if (event.type === "pointerup") select(); path = null; lasso(false); draw(); }
    else if (event.type === "pointerup") hover(nearest(...at(event)));
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("pointerleave", () => { if (!down.size) hover(-1); });
  canvas.addEventListener("wheel", event => { // the page scrolls by itself unless the map was clicked
    if (!event.ctrlKey && document.activeElement !== canvas) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 400), ...at(event));
  }, {passive: false});
  canvas.addEventListener("keydown", event => {
    const step = {ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40]}[event.key];
    if (step) pan(...step);
    else if ("+=".includes(event.key)) zoom(1.3);
    else if (event.key === "-") zoom(1 / 1.3);
    else if (event.key === "0") { home(); draw(); }
    else if (event.key === "l") lasso(!drawing);
    else if (event.key === "Escape") forget();
    else return;
    event.preventDefault();
  });

  function drawLegend() {
    const box = part("legend");
    box.replaceChildren();
    if (channel.kind === "value") {
      const bar = document.createElement("span");
      bar.className = "ramp";
      bar.style.background = `linear-gradient(90deg, ${[0, .25, .5, .75, 1].map(shade).join(",")})`;
      box.append(`${Number(channel.low.toPrecision(3))} `, bar, ` ${Number(channel.high.toPrecision(3))}`);
      return;
    }
    channel.names.slice(0, 60).forEach((name, g) => {
      const button = document.createElement("button");
      button.type = "button"; button.textContent = name;
      button.setAttribute("aria-pressed", !hidden.get(channel).has(g));
      button.setAttribute("aria-label", `${channel.name} ${name}`);
      button.style.setProperty("--dot", colours[g % colours.length]);
      button.onclick = () => {
        const off = hidden.get(channel);
        off.has(g) ? off.delete(g) : off.add(g);
        button.setAttribute("aria-pressed", !off.has(g));
        batch(); hover(-1);
      };
      box.append(button);
    });
  }

  const options = (select, list, pick) => {
    list.forEach((each, i) => select.add(new Option(each.name, i)));
    select.onchange = () => pick(list[select.value]);
    pick(list[0]);
  };
  function resize() {
    const ratio = devicePixelRatio || 1;
    width = canvas.clientWidth; height = canvas.clientHeight;
    canvas.width = width * ratio; canvas.height = height * ratio;
    home(); draw();
  }
  options(part("layout"), layouts, each => { layout = each; if (channel) { batch(); home(); hover(-1); } });
  options(part("colour"), channels, each => { channel = each; batch(); drawLegend(); hover(-1); });
  part("in").onclick = () => zoom(1.4);
  part("out").onclick = () => zoom(1 / 1.4);
  part("home").onclick = () => { home(); draw(); };
  part("lasso").onclick = () => lasso(!drawing);
  part("clear").onclick = forget;
  part("search").oninput = event => {
    const word = event.target.value.trim(), first = test => { for (let i = 0; i < n; i++) if (test(id(i))) return i; return -1; };
    found = word ? first(each => each === word) : -1;
    if (word && found < 0) found = first(each => each.includes(word));
    said.textContent = !word ? "" : found < 0 ? "no such id among the points" : `${id(found)}: ${groups.map(each => `${each.name} ${text(each, found)}`).join(", ")}`;
    if (found >= 0) [view.x, view.y] = [layout.xy[2 * found] / 65535, layout.xy[2 * found + 1] / 65535];
    draw();
  };
  part("copy").onclick = async () => {
    part("ids").select();
    try { await navigator.clipboard.writeText(part("ids").value); } catch { document.execCommand("copy"); }
    said.textContent = "copied";
  };
  root.hidden = false;
  lasso(false);
  new ResizeObserver(resize).observe(canvas);
  resize();
  root.place = place; // for tests: where a point is on the canvas
})();
