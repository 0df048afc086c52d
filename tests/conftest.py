"Settings that must be made before ultralytics and matplotlib are imported."
import os
import tempfile

os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_VERBOSE", "false")
os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp(prefix="privnb-yolo-"))
os.environ.setdefault("MPLBACKEND", "agg")
