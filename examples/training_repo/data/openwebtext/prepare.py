"""python data/openwebtext/prepare.py [--num-proc 4] [--subset 0.001] [--source S] [--force]"""

from datasets_prep.cli import prepare_script

if __name__ == "__main__":
    prepare_script("openwebtext", __file__)
