"""python data/pydoc_topics/prepare.py [--subset 0.1] [--force] [--source S] [--tokenizer T]"""

from datasets_prep.cli import prepare_script

if __name__ == "__main__":
    prepare_script("pydoc_topics", __file__)
