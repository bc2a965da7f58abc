// A face to turn: plain WebGL 2, no library. The meshes come from <script type="application/json" id="meshes">:
// {faces, count, meshes: [{name, label, positions, colors, errors}]}, arrays as base64 (see focus/report/viewer.py).
"use strict";
(() => {
  const root = document.querySelector(".viewer");
  const data = document.getElementById("meshes");
  if (!root || !data) return;
  const canvas = root.querySelector("canvas");
  const gl = canvas.getContext("webgl2", { antialias: true, alpha: true });
  if (!gl) return; // the turntable stays

  const content = JSON.parse(data.textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const faces = new Uint32Array(bytes(content.faces).buffer);

  const vertexShader = `#version 300 es
    in vec3 position; in vec3 normal; in vec3 color; uniform mat3 turn; uniform vec4 frame; out vec3 n; out vec3 c;
    void main() {
      vec3 p = turn * position; n = turn * normal; c = color;
      float w = 1.0 - p.z * 0.0009;
      gl_Position = vec4(p.x * frame.x, p.y * frame.y, -p.z * 0.002 * w, w);
    }`;
  const fragmentShader = `#version 300 es
    precision highp float; in vec3 n; in vec3 c; out vec4 pixel;
    void main() {
      vec3 m = normalize(gl_FrontFacing ? n : -n);
      float key = max(dot(m, normalize(vec3(-0.45, 0.55, 0.75))), 0.0), fill = max(dot(m, normalize(vec3(0.8, 0.1, 0.4))), 0.0);
      vec3 light = vec3(0.36) + vec3(0.66, 0.645, 0.62) * key + vec3(0.16, 0.17, 0.19) * fill;
      pixel = vec4(pow(clamp(pow(c, vec3(2.2)) * light * 1.3, 0.0, 1.0), vec3(1.0 / 2.2)), 1.0);
    }`;
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, vertexShader], [gl.FRAGMENT_SHADER, fragmentShader]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) return;
  gl.useProgram(program);
  gl.enable(gl.DEPTH_TEST);
  const turnAt = gl.getUniformLocation(program, "turn"), frameAt = gl.getUniformLocation(program, "frame");

  const stops = [[235, 232, 225], [246, 178, 107], [209, 73, 40], [110, 16, 30]];
  const heat = (t) => {
    const s = Math.min(Math.max(t, 0), 0.9999) * (stops.length - 1), i = Math.floor(s), f = s - i;
    return stops[i].map((v, k) => v + f * (stops[i + 1][k] - v));
  };
  const normalsOf = (p) => {
    const n = new Float32Array(p.length);
    for (let f = 0; f < faces.length; f += 3) {
      const [a, b, c] = [3 * faces[f], 3 * faces[f + 1], 3 * faces[f + 2]];
      const u = [p[b] - p[a], p[b + 1] - p[a + 1], p[b + 2] - p[a + 2]], v = [p[c] - p[a], p[c + 1] - p[a + 1], p[c + 2] - p[a + 2]];
      const m = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
      for (const i of [a, b, c]) for (let k = 0; k < 3; k++) n[i + k] += m[k];
    }
    return n;
  };
  const meshes = content.meshes.map((mesh) => {
    const positions = new Float32Array(bytes(mesh.positions).buffer), errors = bytes(mesh.errors), skin = bytes(mesh.colors);
    const clay = new Uint8Array(positions.length).fill(200), error = new Uint8Array(positions.length);
    errors.forEach((e, i) => error.set(heat(e / 255), 3 * i));
    return { positions, normals: normalsOf(positions), colors: { skin, clay, error } };
  });

  const buffer = (name, size, type, normalised) => {
    const id = gl.createBuffer(), at = gl.getAttribLocation(program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, id);
    gl.enableVertexAttribArray(at);
    gl.vertexAttribPointer(at, size, type, normalised, 0, 0);
    return (values) => { gl.bindBuffer(gl.ARRAY_BUFFER, id); gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW); };
  };
  const setPositions = buffer("position", 3, gl.FLOAT, false), setNormals = buffer("normal", 3, gl.FLOAT, false);
  const setColors = buffer("color", 3, gl.UNSIGNED_BYTE, true);
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, faces, gl.STATIC_DRAW);

  let yaw = 0.5, pitch = 0.08, turning = !matchMedia("(prefers-reduced-motion: reduce)").matches, clock = 0, pending = false;
  const chosen = (name) => root.querySelector(`input[name=${name}]:checked`).value;
  const load = () => {
    const mesh = meshes[Number(chosen("mesh"))], color = chosen("color");
    setPositions(mesh.positions); setNormals(mesh.normals); setColors(mesh.colors[color]);
    root.querySelector(".scale").classList.toggle("shown", color === "error");
    redraw();
  };
  const draw = (now) => {
    pending = false;
    if (turning) { clock = clock || now; yaw = 0.55 * Math.sin((now - clock) / 2600 + 1.2); redraw(); }
    const ratio = Math.min(devicePixelRatio || 1, 2), width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    gl.viewport(0, 0, width, height);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
    gl.uniformMatrix3fv(turnAt, false, [cy, sp * sy, -cp * sy, 0, cp, sp, sy, -sp * cy, cp * cy]); // Rx(pitch) Ry(yaw), columns
    const scale = content.scale * Math.min(1, width / height);
    gl.uniform4f(frameAt, scale * height / width, scale, 0, 0);
    gl.drawElements(gl.TRIANGLES, faces.length, gl.UNSIGNED_INT, 0);
  };
  const redraw = () => { if (!pending) { pending = true; requestAnimationFrame(draw); } };
  const rotate = (dx, dy) => { turning = false; yaw += dx; pitch = Math.max(-1.2, Math.min(1.2, pitch + dy)); redraw(); };

  let grip = null;
  canvas.addEventListener("pointerdown", (e) => { grip = [e.clientX, e.clientY]; canvas.setPointerCapture(e.pointerId); });
  canvas.addEventListener("pointermove", (e) => {
    if (!grip) return;
    rotate((e.clientX - grip[0]) * 0.009, (e.clientY - grip[1]) * 0.009);
    grip = [e.clientX, e.clientY];
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { grip = null; });
  canvas.addEventListener("keydown", (e) => {
    const step = { ArrowLeft: [-0.12, 0], ArrowRight: [0.12, 0], ArrowUp: [0, -0.12], ArrowDown: [0, 0.12] }[e.key];
    if (step) { rotate(...step); e.preventDefault(); }
  });
  root.querySelectorAll("input").forEach((input) => input.addEventListener("change", load));
  new ResizeObserver(redraw).observe(canvas);
  root.classList.add("live");
  load();
})();
