#!/bin/sh
# Two small repositories, made on the controller: a bare droplet has no git.
#   make_repositories.sh FILES TARGET
set -eu
files=$1 target=$2
export GIT_AUTHOR_NAME=Test GIT_AUTHOR_EMAIL=test@store.test GIT_COMMITTER_NAME=Test GIT_COMMITTER_EMAIL=test@store.test
export GIT_CONFIG_GLOBAL=/dev/null
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir -p "$work/shop/backend/vendor" "$work/site" "$work/desk/uploads"
cp "$files/desk/desk.py" "$work/desk/"
touch "$work/desk/uploads/.keep"
cp "$files/shop/server.py" "$files/shop/migrate.py" "$work/shop/backend/"
echo 1.0 >"$work/shop/backend/VERSION"
echo "./vendor/tiny-1.0-py3-none-any.whl" >"$work/shop/backend/requirements.txt"
echo "nothing of the backend" >"$work/shop/README"
python3 "$files/make_wheel.py" "$work/shop/backend/vendor"
cp -r "$files/site/dist" "$work/site/"

mkdir -p "$target"
for name in shop site desk; do
    git init --quiet --initial-branch main "$work/$name"
    git -C "$work/$name" add --all
    git -C "$work/$name" commit --quiet --message "First version"
    git -C "$work/$name" tag --annotate v1.0 --message "Version 1.0"
    git clone --quiet --bare "$work/$name" "$target/$name.git"
done
