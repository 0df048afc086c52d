#!/bin/sh
# Git settings of this clone only: how notebooks are merged and compared, and the check before a commit.
# Usage: sh tools/install_hooks.sh [VENV]. Undo: git config --local --remove-section merge.jupyternotebook,
# the same for diff.jupyternotebook, and remove the pre-commit hook.
set -eu
root=$(git rev-parse --show-toplevel)
bin=$(cd "$root/${1:-.venv}/bin" && pwd)
git config --local merge.jupyternotebook.name "resolve conflicts cell by cell with nbdev"
git config --local merge.jupyternotebook.driver "'$bin/nbdev-merge' %O %A %B %P"
git config --local diff.jupyternotebook.command "'$bin/nbdev-diff-driver'"
hooks=$(git rev-parse --git-path hooks)
mkdir -p "$hooks"
if [ -e "$hooks/pre-commit" ] && ! grep -q 'privnb: pre-commit' "$hooks/pre-commit"; then
    echo "$hooks/pre-commit exists already and is left as it is" >&2
    exit 1
fi
cat > "$hooks/pre-commit" <<EOF
#!/bin/sh
# privnb: pre-commit
# Refuses a commit in which notebooks, modules and README do not agree.
before=\$(git diff | cksum)
'$bin/nbdev-export' && '$bin/nbdev-clean' && '$bin/python' tools/make_readme.py || exit 1
if [ "\$before" != "\$(git diff | cksum)" ]; then
    echo "export, clean or README changed files; look at git diff, add them and commit again" >&2
    exit 1
fi
EOF
chmod +x "$hooks/pre-commit"
echo "installed: notebook merge and diff drivers, pre-commit check"
