// pm2: `pm2 start ecosystem.config.cjs` in this folder; README.md has the rest.
const path = require("path");

const python =
  process.platform === "win32"
    ? path.join(__dirname, ".venv", "Scripts", "python.exe")
    : path.join(__dirname, ".venv", "bin", "python");

module.exports = {
  apps: [
    {
      name: "comfygen",
      script: path.join(__dirname, "comfygen.py"),
      interpreter: python,
      cwd: __dirname,
      // One process: there is one GPU, and one queue for it.
      exec_mode: "fork",
      instances: 1,
      autorestart: true,
      // 78: only the owner can mend it: see the log. 130: ended at once by a second signal. Not 0:
      // pm2 reports a killed process as 0.
      stop_exit_codes: [78, 130],
      restart_delay: 10000,
      // Longer than SHUTDOWN_GRACE_MS (60 s), in which the current job is finished.
      kill_timeout: 75000,
      max_memory_restart: "1G",
      // Large pictures go back to the system as soon as they are posted (glibc).
      env: { MALLOC_MMAP_THRESHOLD_: "262144" },
    },
  ],
};
